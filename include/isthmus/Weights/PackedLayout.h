//===- PackedLayout.h - how a weight lies in a bundle -----------*- C++ -*-===//
//
// One layout per format, read by every regime (one token, few, many). Matrices
// are cut into panels of 16 outputs; outputs stand across vector lanes.
//
//   f32, f16   panel: [inputs][16]
//   bf16       panel: [inputs / 2][16][2], pairs of inputs side by side
//   int8       panel: f16 scale [inputs / 64][16], then int8
//              [inputs / 64][16][16][4]: value [g][c][o][i] is input
//              64g + 4c + i of output o; groups of 32 inputs where 64 does not
//              divide them (int8GroupOf)
//   int8 with one scale (oneScale): f32 scale [16], then values as above, one
//              group of all inputs
//   int4       panel: f32 rowScale [16], f32 rowOffset [16], then
//              [inputs / 32] { uint8 scale [16], int8 offset [16] }, then uint8
//              [inputs / 32][4][16][4]: the low nibble q of byte [g][c][o][i]
//              is input 32g + 4c + i, the high nibble input 32g + 16 + 4c + i;
//              value = rowScale * scale * q + rowOffset * offset
//   int4 with one scale: f32 scale [16], then
//              [inputs / 32][16] { int8 step, int8 offset }, then nibbles as
//              above: value = scale * (step * (q - 8) + offset), where the
//              integer in brackets is within int8 and step at most 17
//
// Blocks of GGUF (ggml-common.h) keep their values: of b bits, in groups of 32
// inputs, q6_k of 16.
//
//   q8_0       as int8 in groups of 32
//   others     panel: q4_k, q5_k, q6_k first have [inputs / 256] { f16 scale
//              [16], and unless q6_k f16 offset [16] }; then factors for each
//              group: q4_0, q5_0 f16 scale [16]; q4_1, q5_1 f16 scale [16], f16
//              offset [16]; q4_k, q5_k uint8 scale [16], int8 offset [16]; q6_k
//              int8 scale [16]; then for each group nibbles as above, and if b
//              > 4 [16][4] bytes: of byte [o][i] bits (b - 4) * c and on are
//              the upper bits of input 4c + i of output o; value = scale * q +
//              offset, or scale * (q - 2^(b - 1)) where there is no offset;
//              scales and offsets of 256 inputs multiply those of groups
//
// Integers begin at a multiple of 64 bytes: registers and tiles that are loaded
// from elsewhere come from two lines of the cache each. Outputs beyond the last
// are zero. Vectors are f32, padded to 16 values.
//
//===----------------------------------------------------------------------===//
#pragma once

#include <cstdint>

namespace isthmus {

enum class PackedFormat : uint8_t {
  F32,
  F16,
  BF16,
  Int8,
  Int4,
  Q8_0,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q4_K,
  Q5_K,
  Q6_K
};

/// Whether the format keeps the blocks of a GGUF file.
constexpr bool isBlocks(PackedFormat format) {
  return format >= PackedFormat::Q8_0;
}
/// Of q4_k, q5_k and q6_k: so many inputs have scales in common that multiply
/// those of their groups; others have none.
inline constexpr int64_t kSuperBlock = 256;
constexpr bool hasSuperBlocks(PackedFormat format) {
  return format >= PackedFormat::Q4_K;
}
/// Bits of a value of an integer format.
constexpr int64_t bitsOf(PackedFormat format) {
  switch (format) {
  case PackedFormat::Int4:
  case PackedFormat::Q4_0:
  case PackedFormat::Q4_1:
  case PackedFormat::Q4_K:
    return 4;
  case PackedFormat::Q5_0:
  case PackedFormat::Q5_1:
  case PackedFormat::Q5_K:
    return 5;
  case PackedFormat::Q6_K:
    return 6;
  default:
    return 8;
  }
}
/// Whether values are nibbles without sign, with upper bits elsewhere if they
/// have any; other integers are bytes with a sign.
constexpr bool hasNibbles(PackedFormat format) { return bitsOf(format) < 8; }

/// Parts of bf16 whose sum is an f32 value: its upper eight bits of
/// significance, the eight after them, and the last eight (below 2^-110 what
/// bf16 cannot hold is lost). Parts of so many neighbours stand together in a
/// row.
inline constexpr int64_t kFloatParts = 3, kPartsGroup = 32;
/// As how many parts of bf16 a matrix unit takes a value: 0 if it does not.
constexpr int64_t partsOf(PackedFormat format) {
  return format == PackedFormat::F32    ? kFloatParts
         : format == PackedFormat::BF16 ? 1
                                        : 0;
}

/// The most int8 values, weights or activations, that share a scale, unless a
/// whole row does.
inline constexpr int64_t kInt8Group = 64;
/// How many neighbours share a scale in a row of `width` int8 values; the width
/// is a multiple of 32.
constexpr int64_t int8GroupOf(int64_t width) {
  return width % kInt8Group == 0 ? kInt8Group : kInt8Group / 2;
}

/// Which bytes occur in a weight of int8.
enum class ByteRange : uint8_t {
  Symmetric, ///< within +-127
  SevenBits, ///< within +-64: with 64 added, two products with rows fit int16
  All
};

constexpr int64_t roundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

struct PackedLayout {
  static constexpr int64_t kPanel = 16;     ///< outputs in a panel
  static constexpr int64_t kInt4Group = 32; ///< inputs that share a scale

  PackedFormat format;
  int64_t outputs;
  int64_t inputs; ///< 0 for a vector
  /// Of integers: an output has one scale, not one for each group of inputs.
  bool oneScale = false;
  ByteRange range = ByteRange::Symmetric; ///< of int8

  int64_t panels() const { return (outputs + kPanel - 1) / kPanel; }
  /// The largest magnitude of a quantised value of int8.
  int64_t largest() const { return range == ByteRange::SevenBits ? 64 : 127; }
  /// Inputs of an integer format that share factors.
  int64_t group() const {
    if (format == PackedFormat::Q6_K)
      return kInt4Group / 2;
    if (format == PackedFormat::Int4 || isBlocks(format))
      return kInt4Group;
    return oneScale ? inputs : int8GroupOf(inputs);
  }
  int64_t groups() const { return inputs / group(); }
  /// Those that share a scale of their own.
  int64_t scaleGroup() const { return oneScale ? inputs : group(); }
  /// Bytes of the values of a group in a panel, and of its factors: the scales,
  /// or scales (steps) and offsets.
  int64_t valueBytes() const { return kPanel * group() * bitsOf(format) / 8; }
  int64_t factorBytes() const {
    switch (format) {
    case PackedFormat::Q6_K:
      return kPanel;
    case PackedFormat::Q4_1:
    case PackedFormat::Q5_1:
      return kPanel * 4;
    case PackedFormat::Int8:
      return kPanel * (oneScale ? 4 : 2);
    default:
      return kPanel * 2;
    }
  }
  /// Where they begin in a panel.
  int64_t factorsOffset() const {
    if (hasSuperBlocks(format))
      return inputs / kSuperBlock * superBytes();
    return format == PackedFormat::Int4 ? (oneScale ? 1 : 2) * kPanel * 4 : 0;
  }
  /// Bytes of the factors that 256 inputs share.
  int64_t superBytes() const {
    return kPanel * (format == PackedFormat::Q6_K ? 2 : 4);
  }
  /// Whether groups have offsets beside their scales.
  bool hasOffsets() const {
    switch (format) {
    case PackedFormat::Int4:
      return !oneScale;
    case PackedFormat::Q4_1:
    case PackedFormat::Q5_1:
    case PackedFormat::Q4_K:
    case PackedFormat::Q5_K:
      return true;
    default:
      return false;
    }
  }
  /// Which nibble, or longer integer, is the value 0: half of the range where
  /// blocks have no offset.
  int64_t zero() const {
    return isBlocks(format) && hasNibbles(format) && !hasOffsets()
               ? int64_t(1) << (bitsOf(format) - 1)
               : 0;
  }
  /// Of int4 with one scale: as int8 holds the same values.
  PackedLayout inBytes() const {
    return {PackedFormat::Int8, outputs, inputs, /*oneScale=*/true};
  }
  int64_t valuesOffset() const {
    return roundUp(factorsOffset() + groups() * factorBytes(), 64);
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
    default:
      return valuesOffset() + groups() * valueBytes();
    }
  }
  int64_t bytes() const { return panels() * panelBytes(); }
};

} // namespace isthmus
