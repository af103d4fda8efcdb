//===- PackedLayout.h - how a weight lies in a bundle -----------*- C++ -*-===//
//
// One layout per format, read by every regime (one token, few, many). Matrices
// are cut into panels of 16 outputs; outputs stand across vector lanes.
//
//   f32, f16   panel: [inputs][16]
//   bf16       panel: [inputs / 2][16][2], pairs of inputs side by side
//   int8       panel: [inputs / 64] blocks of
//              { int8 [16][16][4], f16 scale [16] }
//              byte [c][o][i] is input 4c + i of output o; blocks of 32 inputs
//              where 64 does not divide them (int8GroupOf); or one block of
//              all inputs (int8Rows)
//   int4       panel: { f32 rowScale [16], f32 rowOffset [16] }, then
//              [inputs / 32] blocks of
//              { uint8 [4][16][4], uint8 scale [16], int8 offset [16] }
//              the low nibble q of byte [c][o][i] is input 4c + i, the high
//              nibble input 16 + 4c + i; value = rowScale * scale * q +
//              rowOffset * offset
//
// Outputs beyond the last are zero. Vectors are f32, padded to 16 values.
//
//===----------------------------------------------------------------------===//
#pragma once

#include <cstdint>

namespace isthmus {

enum class PackedFormat : uint8_t { F32, F16, BF16, Int8, Int4 };

/// The most int8 values, weights or activations, that share a scale, unless a
/// whole row does.
inline constexpr int64_t kInt8Group = 64;
/// How many neighbours share a scale in a row of `width` int8 values; the width
/// is a multiple of 32.
constexpr int64_t int8GroupOf(int64_t width) {
  return width % kInt8Group == 0 ? kInt8Group : kInt8Group / 2;
}

struct PackedLayout {
  static constexpr int64_t kPanel = 16;     ///< outputs in a panel
  static constexpr int64_t kInt4Group = 32; ///< inputs that share a scale

  PackedFormat format;
  int64_t outputs;
  int64_t inputs; ///< 0 for a vector
  /// Of int8: an output has one scale, not one for each group of inputs.
  bool int8Rows = false;

  int64_t panels() const { return (outputs + kPanel - 1) / kPanel; }
  /// Inputs of one block of an integer format, which share a scale.
  int64_t group() const {
    if (format == PackedFormat::Int4)
      return kInt4Group;
    return int8Rows ? inputs : int8GroupOf(inputs);
  }
  int64_t groups() const { return inputs / group(); }
  /// Bytes of such a block, and of its values alone.
  int64_t blockBytes() const { return valueBytes() + kPanel * 2; }
  int64_t valueBytes() const {
    return kPanel * group() / (format == PackedFormat::Int4 ? 2 : 1);
  }
  /// Bytes before the first block of a panel.
  int64_t panelHeaderBytes() const {
    return format == PackedFormat::Int4 ? 2 * kPanel * 4 : 0;
  }
  int64_t panelBytes() const {
    if (inputs == 0)
      return kPanel * 4;
    switch (format) {
    case PackedFormat::F32:
      return inputs * kPanel * 4;
    case PackedFormat::F16:
    case PackedFormat::BF16:
      return inputs * kPanel * 2;
    case PackedFormat::Int8:
    case PackedFormat::Int4:
      return panelHeaderBytes() + groups() * blockBytes();
    }
    return 0;
  }
  int64_t bytes() const { return panels() * panelBytes(); }
};

} // namespace isthmus
