//===- KVLayout.h - how keys and values lie in the cache --------*- C++ -*-===//
//
// A page of the cache holds rt::kPagePositions positions; for each key/value
// head of it, keys and then values:
//
//   f32, f16    keys [headDim][positions], values [positions][headDim]
//   bf16, int8  what is summed stands in pairs: keys
//               [headDim / 2][positions][2], values
//               [positions / 2][headDim][2]
//   int8        after them the f32 scales of keys and of values, [positions]
//               each
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Weights/PackedLayout.h"
#include "isthmus/runtime/KernelABI.h"

namespace isthmus {

struct KVLayout {
  PackedFormat format; ///< f32, f16, bf16 or int8
  int64_t kvHeads, headDim;

  int64_t valueBytes() const {
    switch (format) {
    case PackedFormat::F32:
      return 4;
    case PackedFormat::Int8:
      return 1;
    default:
      return 2;
    }
  }
  /// Features of a key, or positions of a value, that stand side by side and
  /// are multiplied and summed at once.
  int64_t valuesAtOnce() const {
    return format == PackedFormat::BF16 || format == PackedFormat::Int8 ? 2 : 1;
  }
  /// Whether each key and each value has a scale.
  bool hasScales() const { return format == PackedFormat::Int8; }

  // Of one head in a page, in bytes.
  int64_t valuesOffset() const {
    return headDim * rt::kPagePositions * valueBytes();
  }
  int64_t keyScalesOffset() const { return 2 * valuesOffset(); }
  int64_t valueScalesOffset() const {
    return keyScalesOffset() + rt::kPagePositions * 4;
  }
  int64_t headBytes() const {
    return keyScalesOffset() + (hasScales() ? 2 * rt::kPagePositions * 4 : 0);
  }
  int64_t pageBytes() const { return kvHeads * headBytes(); }
  /// Bytes of one position of all heads.
  int64_t positionBytes() const { return pageBytes() / rt::kPagePositions; }
};

} // namespace isthmus
