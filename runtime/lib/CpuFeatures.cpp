//===- CpuFeatures.cpp - what this processor can run ----------------------===//
#include "isthmus/runtime/CpuFeatures.h"

#include <fstream>
#include <set>
#include <sstream>

using namespace isthmus;

static std::set<std::string> readFlags() {
  std::set<std::string> flags;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    // "flags" on x86, "Features" on Arm.
    if (!line.starts_with("flags") && !line.starts_with("Features"))
      continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;)
      flags.insert(word);
    break;
  }
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
