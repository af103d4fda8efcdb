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

/// One group of 32 values as integers and an f16 scale: value = scale * q.
struct QuantizedGroup {
  int8_t q[PackedLayout::kGroup];
  _Float16 scale;
};
QuantizedGroup quantizeInt8(const float *values);
QuantizedGroup quantizeInt4(const float *values);

/// Packs one panel: `rows[i]` is output i of the panel (up to 16 rows of
/// `layout.inputs` values), `out` has `layout.panelBytes()` bytes.
void packPanel(const PackedLayout &layout, std::span<const float *const> rows,
               std::byte *out);

} // namespace isthmus::weights
