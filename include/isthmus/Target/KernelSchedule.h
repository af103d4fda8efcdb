//===- KernelSchedule.h - how kernels are cut to a machine ------*- C++ -*-===//
//
// Whatever a kernel generator may choose freely: how much it keeps in
// registers, unrolls, prefetches, and keeps in a cache. No choice changes a bit
// of a result (docs/numerics.md). Targets bring defaults; `isthmus tune`
// measures better ones for the machine at hand (docs/tuning.md).
//
//===----------------------------------------------------------------------===//
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus {

constexpr int64_t kTileRows = 16; ///< of a tile of a matrix unit

/// Registers that a product of `rows` with `panels` takes in a matrix unit: its
/// sums, the rows, and the weights.
constexpr int64_t tileRegistersFor(int64_t rows, int64_t panels) {
  return (rows + kTileRows - 1) / kTileRows * (panels + 1) + panels;
}

struct KernelSchedule {
  int64_t panels = 1;           ///< panels that one row takes at once; half as
                                ///< many of each weight of a gated unit
  int64_t dotRows = 1;          ///< rows that int8 products take at once
  int64_t nibbleRows = 1;       ///< rows that int4 products take at once
  int64_t wholeRows = 1;        ///< rows that int8 products with one scale a
                                ///< row take at once (16 and more of a model
                                ///< in a matrix unit: TileProduct)
  int64_t wholePanels = 1;      ///< panels that such rows take at once
  int64_t floatRows = 1;        ///< rows that products of floats take at once
  int64_t pairRows = 1;         ///< the same of bf16, taken in pairs
  int64_t floatPanels = 1;      ///< panels that rows of floats take at once
  int64_t attentionQueries = 1; ///< queries that share loads of the cache
  int64_t attentionSums = 2;    ///< sums of theirs, 16 each, in registers
  /// Whether integer products unroll a group of 64 inputs, or take 32 and 32.
  int64_t unrollGroups = 0;
  /// Bytes of activations that the tiles of a product share; the same for all
  /// targets of a bundle.
  int64_t tileBytes = 448 << 10;
  /// With one row what lies `prefetchNear` bytes ahead is prefetched; beside
  /// several panels at once the same place of those that come next, unless that
  /// is further than `prefetchFarthest` bytes.
  int64_t prefetchFarthest = 64 << 10;
  int64_t prefetchNear = 2 << 10;

  bool operator==(const KernelSchedule &) const = default;
};

/// A choice, how it is printed and searched.
struct ScheduleField {
  enum Regime { Prefill, Decode };

  const char *name;
  int64_t KernelSchedule::*value;
  std::vector<int64_t> candidates;
  Regime regime;                     ///< the work that it speeds up,
  std::vector<const char *> weights; ///< and with which weights
  /// Cost model: vectors of 16 lanes that the inner loop keeps in registers; 0
  /// if the choice takes none.
  int64_t (*vectors)(const KernelSchedule &);
  /// The same for tiles of 16 rows in a matrix unit, where a target has one; 0
  /// if the rows fill none, and vectors are what counts.
  int64_t (*tiles)(const KernelSchedule &) = nullptr;
};

/// All choices, in the order in which they are searched.
std::span<const ScheduleField> scheduleFields();

/// "panels=4,dot_rows=8,...": every field.
std::string toString(const KernelSchedule &schedule);

/// Changes the fields that `text` names. Throws rt::Error for an unknown name
/// or a value that is none.
void parseSchedule(std::string_view text, KernelSchedule &schedule);

} // namespace isthmus
