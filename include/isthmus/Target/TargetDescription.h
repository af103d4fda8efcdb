//===- TargetDescription.h - what a kernel generator must know --*- C++ -*-===//
//
// The one place that describes an instruction set. Passes and kernel emitters
// ask this description; none of them names an instruction set itself. See
// docs/add-a-target.md.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Target/KernelSchedule.h"

#include <span>
#include <string>
#include <string_view>

namespace isthmus {

/// How four neighbouring int8 products are summed into an int32 lane.
enum class DotProduct {
  Portable,   ///< widen, multiply, add
  Avx2Madd,   ///< vpmaddubsw + vpmaddwd, signs moved to avoid saturation
  AvxVnni,    ///< vpdpbusd of 256 bits, unsigned weights with a correction
  Avx512Vnni, ///< the same of 512 bits
  Amx,        ///< tdpbssd for many rows of int8, else as Avx512Vnni; and
              ///< tdpbf16ps for floats (--products)
  NeonDot,    ///< sdot
  NeonMatrix, ///< smmla, two rows by two outputs
};

/// How a pair of neighbouring bf16 products is added to an f32 lane: the second
/// and then the first, each fused.
enum class PairDot {
  TwoFmas,    ///< widen, and two fused multiply-adds
  Avx512BF16, ///< vdpbf16ps of 512 bits
};

struct TargetDescription {
  std::string name;     ///< what users and topology files write
  std::string triple;   ///< LLVM target triple
  std::string cpu;      ///< LLVM CPU name
  std::string features; ///< LLVM feature string
  /// Features that the runtime checks before it loads a kernel (the names of
  /// /proc/cpuinfo).
  std::string requiredCpuFlags;
  DotProduct dot;
  PairDot pairDot = PairDot::TwoFmas;
  bool roundsToBF16 = false;           ///< by vcvtneps2bf16 of 512 bits
  int64_t vectorRegisters, vectorBits; ///< what sums may stay in
  int64_t tileRegisters = 0;           ///< of a matrix unit, if there is one
  KernelSchedule schedule;

  /// x86 before AVX-512: loops spill unless they are written with care.
  bool hasFewRegisters() const { return vectorRegisters <= 16; }
  /// Whether rows of bf16 are kept as f32, where pairs would have to be taken
  /// apart for each weight. (Rows for a matrix unit are other rows.)
  bool widensRows() const {
    return pairDot == PairDot::TwoFmas && tileRegisters == 0;
  }
};

/// All targets, the preferred ones of an architecture first.
std::span<const TargetDescription> allTargets();

/// Returns the target called `name`, or nullptr.
const TargetDescription *findTarget(std::string_view name);

/// Returns the best target that this machine can run.
const TargetDescription &hostTarget();

} // namespace isthmus
