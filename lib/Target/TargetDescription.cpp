//===- TargetDescription.cpp - the table of targets -----------------------===//
#include "isthmus/Target/TargetDescription.h"

#include "isthmus/runtime/CpuFeatures.h"

#include <array>

using namespace isthmus;

std::span<const TargetDescription> isthmus::allTargets() {
  static const std::array<TargetDescription, 5> targets = {{
      {"x86-64-avx512-vnni", "x86_64-unknown-linux-gnu", "x86-64-v4",
       "+avx512vnni", "avx512f avx512bw avx512vl avx512_vnni",
       DotProduct::Avx512Vnni, /*panels=*/4, /*floatRows=*/12,
       /*attentionQueries=*/12, /*dotRows=*/8},
      {"x86-64-avx-vnni", "x86_64-unknown-linux-gnu", "x86-64-v3", "+avxvnni",
       "avx2 fma f16c avx_vnni", DotProduct::AvxVnni, /*panels=*/2,
       /*floatRows=*/6,
       /*attentionQueries=*/3, /*dotRows=*/4},
      {"x86-64-avx2", "x86_64-unknown-linux-gnu", "x86-64-v3", "",
       "avx2 fma f16c", DotProduct::Avx2Madd, /*panels=*/2, /*floatRows=*/6,
       /*attentionQueries=*/3, /*dotRows=*/4},
      {"aarch64-dotprod", "aarch64-unknown-linux-gnu", "generic",
       "+v8.2a,+dotprod,+fullfp16", "asimddp asimdhp", DotProduct::NeonDot,
       /*panels=*/2, /*floatRows=*/6,
       /*attentionQueries=*/3, /*dotRows=*/4},
      {"aarch64", "aarch64-unknown-linux-gnu", "generic", "", "asimd",
       DotProduct::Portable, /*panels=*/2, /*floatRows=*/6,
       /*attentionQueries=*/3, /*dotRows=*/2},
  }};
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
