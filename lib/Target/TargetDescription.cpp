//===- TargetDescription.cpp - the table of targets -----------------------===//
#include "isthmus/Target/TargetDescription.h"

#include "isthmus/runtime/CpuFeatures.h"

#include <array>

using namespace isthmus;

/// `base`, after `change` was made to it.
template <typename Change>
static TargetDescription derive(TargetDescription base, Change change) {
  change(base);
  return base;
}

static TargetDescription avx512Vnni() {
  return {
      .name = "x86-64-avx512-vnni",
      .triple = "x86_64-unknown-linux-gnu",
      .cpu = "x86-64-v4",
      .features = "+avx512vnni",
      .requiredCpuFlags = "avx512f avx512bw avx512vl avx512_vnni",
      .dot = DotProduct::Avx512Vnni,
      .vectorRegisters = 32,
      .vectorBits = 512,
      .schedule = {.panels = 4,
                   .dotRows = 8,
                   .nibbleRows = 8,
                   .wholeRows = 8,
                   .wholePanels = 2,
                   .floatRows = 12,
                   .pairRows = 12,
                   .floatPanels = 2,
                   .attentionQueries = 12,
                   .attentionSums = 24,
                   .unrollGroups = 1},
  };
}

static TargetDescription avx512BF16() {
  return derive(avx512Vnni(), [](TargetDescription &t) {
    t.name = "x86-64-avx512-bf16";
    t.features += ",+avx512bf16";
    t.requiredCpuFlags += " avx512_bf16";
    t.pairDot = PairDot::Avx512BF16;
    t.roundsToBF16 = true;
  });
}

static TargetDescription avx2() {
  return {
      .name = "x86-64-avx2",
      .triple = "x86_64-unknown-linux-gnu",
      .cpu = "x86-64-v3",
      .features = "",
      .requiredCpuFlags = "avx2 fma f16c",
      .dot = DotProduct::Avx2Madd,
      .vectorRegisters = 16,
      .vectorBits = 256,
      .schedule = {.panels = 1,
                   .dotRows = 4,
                   .nibbleRows = 4,
                   .wholeRows = 4,
                   .floatRows = 6,
                   .pairRows = 6,
                   .attentionQueries = 12,
                   .attentionSums = 4,
                   .unrollGroups = 1,
                   .prefetchNear = 1 << 10},
  };
}

static TargetDescription neon() {
  return {
      .name = "aarch64",
      .triple = "aarch64-unknown-linux-gnu",
      .cpu = "generic",
      .features = "",
      .requiredCpuFlags = "asimd",
      .dot = DotProduct::Portable,
      .vectorRegisters = 32,
      .vectorBits = 128,
      .schedule = {.panels = 2,
                   .dotRows = 2,
                   .nibbleRows = 2,
                   .wholeRows = 4,
                   .floatRows = 6,
                   .pairRows = 6,
                   .attentionQueries = 3,
                   .attentionSums = 6},
  };
}

std::span<const TargetDescription> isthmus::allTargets() {
  static const std::array targets = {
      derive(avx512BF16(),
             [](TargetDescription &t) {
               t.name = "x86-64-amx";
               t.features += ",+amx-tile,+amx-int8,+amx-bf16";
               t.requiredCpuFlags += " amx_tile amx_int8 amx_bf16";
               t.dot = DotProduct::Amx;
               // vdpbf16ps takes as long there as four multiply-adds.
               t.pairDot = PairDot::TwoFmas;
               t.tileRegisters = 8;
               t.schedule.dotRows = 16;
               t.schedule.wholeRows = 32;
               // Such cores have 2 MB of second-level cache.
               t.schedule.tileBytes = 896 << 10;
             }),
      avx512BF16(),
      avx512Vnni(),
      derive(avx2(),
             [](TargetDescription &t) {
               t.name = "x86-64-avx-vnni";
               t.features = "+avxvnni";
               t.requiredCpuFlags += " avx_vnni";
               t.dot = DotProduct::AvxVnni;
             }),
      avx2(),
      derive(neon(),
             [](TargetDescription &t) {
               t.name = "aarch64-i8mm";
               t.features = "+v8.2a,+dotprod,+fullfp16,+i8mm";
               t.requiredCpuFlags = "asimddp asimdhp i8mm";
               t.dot = DotProduct::NeonMatrix;
               t.schedule.dotRows = 4;
               t.schedule.nibbleRows = 4;
             }),
      derive(neon(),
             [](TargetDescription &t) {
               t.name = "aarch64-dotprod";
               t.features = "+v8.2a,+dotprod,+fullfp16";
               t.requiredCpuFlags = "asimddp asimdhp";
               t.dot = DotProduct::NeonDot;
             }),
      neon(),
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
    // A system may refuse the registers of what the processor has.
    if (rt::cpuSupports(target.triple, target.requiredCpuFlags) &&
        rt::requestCpuFeatures(target.requiredCpuFlags))
      return target;
  // Every x86-64 machine of the last ten years has AVX2; the loader refuses
  // with a clear message on the others.
  return *findTarget("x86-64-avx2");
}
