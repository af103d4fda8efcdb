//===- Linker.h - from templates and a plan to launches ---------*- C++ -*-===//
//
// Turns one stage of a plan into the list of launches that its device runs,
// with a memory plan. Free of MLIR and of any device: the compiler uses it to
// know peaks, the runtime to run, and a new plan needs nothing else.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "bundle.pb.h"
#include "isthmus/runtime/KernelABI.h"

#include <cstdint>
#include <string>
#include <vector>

namespace isthmus::rt {

/// What the step may hold; sizes of memory follow from it.
struct StepLimits {
  uint64_t tokens = 512; ///< rows of a step
  uint64_t outputs = 64; ///< rows whose logits are wanted
};

/// Steps of few rows are linked apart: in them every thread runs the launches
/// that work row by row, instead of waiting for one that does.
enum class Regime { Small, Large };
/// Most rows, tokens and outputs alike, of a small step.
inline constexpr uint64_t kSmallStepRows = 4;

/// Where an operand of a launch lies.
struct LinkedOperand {
  /// `Private` is an offset in the calling thread's own temporaries.
  enum class Kind { Arena, Private, Weight, State } kind;
  uint64_t value; ///< byte offset, index of the weight, number of the state
};

struct LinkedLaunch {
  const bundle::Launch *launch; ///< in the manifest: kernel and cost
  std::vector<LinkedOperand> operands;
  uint64_t tiles, rowsPerTile;
  bool perPartition, wait;
  bool replicate; ///< every thread runs all tiles
  bundle::RowKind rows;
  uint32_t call; ///< index of the call in the program
};

struct LinkedBuffer {
  uint64_t offset = 0, rowBytes = 0;
  bundle::RowKind rows = bundle::TOKENS;
};

/// Pages of a cache with room for `pages`: it has whole groups (KernelABI.h).
constexpr uint64_t pagesInGroups(uint64_t pages) {
  constexpr uint64_t kGroup = kPartitionPages;
  return (pages + kGroup - 1) / kGroup * kGroup;
}

/// One stage, linked. Refers to the manifest, which must outlive it.
struct LinkedStage {
  std::vector<LinkedLaunch> launches;
  bool hasInput = false; ///< false in the first stage: token ids only
  LinkedBuffer input, output;
  std::vector<uint32_t> weights; ///< indices of the weights used, unique
  /// States of the stage and the bytes of one page of each.
  std::vector<std::pair<uint32_t, uint64_t>> states;

  // The memory plan, in bytes.
  uint64_t arenaBytes = 0;   ///< activations
  uint64_t privateBytes = 0; ///< temporaries of each thread (small steps)
  uint64_t scratchBytes = 0; ///< for each thread
  uint64_t weightBytes = 0;
  uint64_t pageBytes = 0; ///< all states, one page of positions

  /// Bytes for `positions` cached positions and `threads` threads.
  uint64_t peakBytes(uint64_t positions, unsigned threads) const;
};

/// Links stage `stage` of `plan` for one regime. Input and output lie at the
/// same place in both, and the small regime's arena within the large one's. The
/// manifest must have passed checkManifest.
LinkedStage linkStage(const bundle::Manifest &manifest,
                      const bundle::Plan &plan, int stage,
                      const StepLimits &limits, Regime regime = Regime::Large);

} // namespace isthmus::rt
