//===- RowOps.h - what is done to rows of weights ---------------*- C++ -*-===//
//
// The vectorised implementations behind the fm weight operators, free of MLIR.
// Each works on whole rows, so that a tensor of any size streams through.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Import/Checkpoint.h"
#include "isthmus/Weights/PackedLayout.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace isthmus::weights {

/// Decodes `out.size()` values stored as `dtype` at `source` (whole blocks).
void dequantize(import::DType dtype, const std::byte *source,
                std::span<float> out);

/// Values [first, first + out.size()) of the stream generated from `seed`:
/// uniform in +-sqrt(3) / sqrt(inputs), or 1 + a hundredth of it for vectors
/// (`inputs` 0).
void generate(uint64_t seed, uint64_t first, int64_t inputs,
              std::span<float> out);

/// Of each four consecutive values keeps the two of largest magnitude.
void prune2of4(std::span<float> row);

/// Sets the floor(sparsity * size) values of least magnitude to zero.
void pruneUnstructured(std::span<float> row, double sparsity);

/// The upper half of an f32, rounded to nearest even (NaN stays NaN).
uint16_t toBF16(float value);
float roundToBF16(float value);

/// Writes values that share a scale as integers to `q`, `largest` and less in
/// magnitude, and returns the scale: value = scale * q.
_Float16 quantizeInt8(std::span<const float> values, int64_t largest,
                      int8_t *q);

/// A row in int4: value = rowScale * scale * q + rowOffset * offset, with scale
/// and offset for each group of 32 and q in 0..15.
struct Int4Row {
  struct Group {
    uint8_t q[PackedLayout::kInt4Group];
    uint8_t scale;
    int8_t offset;
  };
  float rowScale, rowOffset;
  std::vector<Group> groups;
  float value(size_t index) const {
    const Group &g = groups[index / PackedLayout::kInt4Group];
    return rowScale * float(g.scale) *
               float(g.q[index % PackedLayout::kInt4Group]) +
           rowOffset * float(g.offset);
  }
};
/// For each group, fits scale and offset by least squares for a fixed set of
/// ranges and keeps the best; then rounds both to 8 bits of the row's largest.
/// \param onGrid values may be four-bit ones already: a group that is at most
/// 15 equal steps wide keeps its steps.
Int4Row quantizeInt4(std::span<const float> row, bool onGrid = false);

/// A row in int4 with one scale: value = scale * (step * (q - 8) + offset),
/// with step and offset for each group of 32 and q in 0..15. What is in
/// brackets is within int8, and a step at most 17.
struct Int4SteppedRow {
  struct Group {
    uint8_t q[PackedLayout::kInt4Group];
    int8_t step, offset;
  };
  float scale;
  std::vector<Group> groups;
  float value(size_t index) const {
    const Group &g = groups[index / PackedLayout::kInt4Group];
    const int q = g.q[index % PackedLayout::kInt4Group];
    return scale * float(g.step * (q - 8) + g.offset);
  }
};
/// Fits groups as quantizeInt4 does; the widest of them sets the scale. Of the
/// two steps next to the fitted one the better stays.
Int4SteppedRow quantizeInt4Stepped(std::span<const float> row,
                                   bool onGrid = false);

/// Packs one panel: `rows[i]` is output i of the panel (up to 16 rows of
/// `layout.inputs` values), `out` has `layout.panelBytes()` bytes.
void packPanel(const PackedLayout &layout, std::span<const float *const> rows,
               std::byte *out, bool onGrid = false);

/// The same of a format that keeps blocks: `rows[i]` are those of output i in a
/// file.
void packBlocks(const PackedLayout &layout,
                std::span<const std::byte *const> rows, std::byte *out);

} // namespace isthmus::weights
