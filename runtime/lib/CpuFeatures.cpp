//===- CpuFeatures.cpp - what this processor can run ----------------------===//
#include "isthmus/runtime/CpuFeatures.h"

#include <set>
#include <sstream>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#else
#include <fstream>
#include <sys/syscall.h>
#include <unistd.h>
#endif

using namespace isthmus;

/// What this processor has, under the names of /proc/cpuinfo.
static std::set<std::string> readFlags() {
  std::set<std::string> flags;
#if defined(__aarch64__)
  // The auxiliary vector is what the kernel promises to processes; an emulator
  // answers for the processor it emulates, while /proc/cpuinfo shows the host.
  const unsigned long first = getauxval(AT_HWCAP),
                      second = getauxval(AT_HWCAP2);
  const std::pair<const char *, bool> known[] = {
      {"asimd", first & HWCAP_ASIMD},     {"fphp", first & HWCAP_FPHP},
      {"asimdhp", first & HWCAP_ASIMDHP}, {"asimddp", first & HWCAP_ASIMDDP},
      {"i8mm", second & HWCAP2_I8MM},     {"bf16", second & HWCAP2_BF16}};
  for (auto [name, present] : known)
    if (present)
      flags.insert(name);
#else
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags"))
      continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;)
      flags.insert(word);
    break;
  }
#endif
  return flags;
}

bool rt::cpuSupports(std::string_view triple, std::string_view flags,
                     std::string *missing) {
#if defined(__x86_64__)
  constexpr std::string_view here = "x86_64";
#elif defined(__aarch64__)
  constexpr std::string_view here = "aarch64";
#else
  constexpr std::string_view here = "unknown";
#endif
  if (!triple.starts_with(here)) {
    if (missing)
      *missing = std::string(triple.substr(0, triple.find('-')));
    return false;
  }
  const std::set<std::string> present = readFlags();
  std::istringstream words{std::string(flags)};
  for (std::string word; words >> word;) {
    if (present.contains(word))
      continue;
    if (missing)
      *missing = word;
    return false;
  }
  return true;
}

bool rt::requestCpuFeatures(std::string_view flags) {
#if defined(__x86_64__)
  // Tiles are large: Linux saves them only for processes that asked
  // (Documentation/arch/x86/xstate.rst).
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  if (flags.find("amx_tile") != std::string_view::npos)
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#endif
  (void)flags;
  return true;
}
