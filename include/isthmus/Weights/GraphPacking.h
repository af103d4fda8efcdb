//===- GraphPacking.h - matrices of graphs as products read them *- C++ -*-===//
//
// What graph-pack-products asks for: its nodes `isthmus.PackFloats` and so on
// are not run, their results are written into the bundle.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/runtime/DataType.h"

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace isthmus {

/// Columns of a panel, and rows whose bytes stand side by side.
inline constexpr int64_t kGraphPanel = 16, kGraphQuad = 4;

/// Takes packed bytes, piece after piece.
using PackSink = std::function<void(std::span<const std::byte>)>;

/// A matrix of f32 or of bytes in memory.
struct MatrixView {
  std::span<const std::byte> bytes;
  rt::DataType type;
  int64_t rows, columns;
  bool turned; ///< its columns stand one after another, not its rows
};

/// [panels][rows][16] of f32; columns that are missing are 0.
void packFloats(const MatrixView &matrix, const PackSink &sink);

/// [panels][rows / 4][16][4] of int8: from bytes without sign 128 is taken off;
/// what is missing is 0.
void packIntegers(const MatrixView &matrix, const PackSink &sink);

/// The sum of each column of what packIntegers makes, as i32.
void packSums(const MatrixView &matrix, const PackSink &sink);

/// Filters [channels][inputs][taps] of bytes as [channels][taps][inputs / 2] of
/// two int16, without the zero point, of which there is one, or one for each
/// channel; where the second input is missing it is 0.
void packFilters(std::span<const std::byte> filters, rt::DataType type,
                 int64_t channels, int64_t inputs, int64_t taps,
                 std::span<const int32_t> zeroPoints, const PackSink &sink);

} // namespace isthmus
