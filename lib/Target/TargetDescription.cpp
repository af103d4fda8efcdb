//===- TargetDescription.cpp - the table of targets -----------------------===//
#include "isthmus/Target/TargetDescription.h"

#include "isthmus/runtime/CpuFeatures.h"

#include <array>

using namespace isthmus;

std::span<const TargetDescription> isthmus::allTargets() {
  static const std::array targets = {
      TargetDescription{
          .name = "x86-64-avx512-bf16",
          .triple = "x86_64-unknown-linux-gnu",
          .cpu = "x86-64-v4",
          .features = "+avx512vnni,+avx512bf16",
          .requiredCpuFlags = "avx512f avx512bw avx512vl avx512_vnni "
                              "avx512_bf16",
          .dot = DotProduct::Avx512Vnni,
          .pairDot = PairDot::Avx512BF16,
          .panels = 4,
          .floatRows = 12,
          .floatPanels = 2,
          .attentionQueries = 12,
          .dotRows = 8,
      },
      TargetDescription{
          .name = "x86-64-avx512-vnni",
          .triple = "x86_64-unknown-linux-gnu",
          .cpu = "x86-64-v4",
          .features = "+avx512vnni",
          .requiredCpuFlags = "avx512f avx512bw avx512vl avx512_vnni",
          .dot = DotProduct::Avx512Vnni,
          .panels = 4,
          .floatRows = 12,
          .floatPanels = 2,
          .attentionQueries = 12,
          .dotRows = 8,
      },
      TargetDescription{
          .name = "x86-64-avx-vnni",
          .triple = "x86_64-unknown-linux-gnu",
          .cpu = "x86-64-v3",
          .features = "+avxvnni",
          .requiredCpuFlags = "avx2 fma f16c avx_vnni",
          .dot = DotProduct::AvxVnni,
          .panels = 2,
          .floatRows = 6,
          .attentionQueries = 2,
          .dotRows = 4,
      },
      TargetDescription{
          .name = "x86-64-avx2",
          .triple = "x86_64-unknown-linux-gnu",
          .cpu = "x86-64-v3",
          .features = "",
          .requiredCpuFlags = "avx2 fma f16c",
          .dot = DotProduct::Avx2Madd,
          .panels = 2,
          .floatRows = 6,
          .attentionQueries = 2,
          .dotRows = 4,
      },
      TargetDescription{
          .name = "aarch64-dotprod",
          .triple = "aarch64-unknown-linux-gnu",
          .cpu = "generic",
          .features = "+v8.2a,+dotprod,+fullfp16",
          .requiredCpuFlags = "asimddp asimdhp",
          .dot = DotProduct::NeonDot,
          .panels = 2,
          .floatRows = 6,
          .attentionQueries = 3,
          .dotRows = 2,
      },
      TargetDescription{
          .name = "aarch64",
          .triple = "aarch64-unknown-linux-gnu",
          .cpu = "generic",
          .features = "",
          .requiredCpuFlags = "asimd",
          .dot = DotProduct::Portable,
          .panels = 2,
          .floatRows = 6,
          .attentionQueries = 3,
          .dotRows = 2,
      },
  };
  return targets;
}

const TargetDescription *isthmus::findTarget(std::string_view name) {
  for (const TargetDescription &target : allTargets())
    if (target.name == name)
      return &target;
  return nullptr;
}

const TargetDescription &isthmus::hostTarget() {
  for (const TargetDescription &target : allTargets())
    if (rt::cpuSupports(target.triple, target.requiredCpuFlags))
      return target;
  // Every x86-64 machine of the last ten years has AVX2; the loader refuses
  // with a clear message on the others.
  return *findTarget("x86-64-avx2");
}
