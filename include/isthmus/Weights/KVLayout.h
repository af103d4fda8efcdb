//===- KVLayout.h - how keys and values lie in the cache --------*- C++ -*-===//
//
// A page of the cache holds rt::kPagePositions positions. What lies one after
// the other in memory is read faster than what is scattered over it, and pages
// of a sequence mostly have successive numbers: therefore pages lie in groups
// of rt::kPartitionPages, and a group holds, for each key/value head, the keys
// of its pages and then their values. Of one page and head those are:
//
//   f32, f16    keys [headDim][positions], values [positions][headDim]
//   bf16, int8  what is summed stands in pairs: keys
//               [headDim / 2][positions][2], values
//               [positions / 2][headDim][2]
//   int8        after keys, and after values, their f32 scales [positions]
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

  // In bytes. What has an offset has it from the keys of a head in a page.
  int64_t keysBytes() const { ///< and values: of a head in a page
    return headDim * rt::kPagePositions * valueBytes();
  }
  int64_t keyScalesOffset() const { return keysBytes(); }
  int64_t valuesOffset() const { return rt::kPartitionPages * keysStride(); }
  int64_t valueScalesOffset() const { return valuesOffset() + keysBytes(); }
  /// From a page to the next one of its group.
  int64_t keysStride() const {
    return keysBytes() + (hasScales() ? rt::kPagePositions * 4 : 0);
  }
  /// From a head to the next one of a group.
  int64_t headStride() const { return 2 * valuesOffset(); }
  int64_t groupBytes() const { return kvHeads * headStride(); }
  /// What a page adds to a cache of whole groups.
  int64_t pageBytes() const { return groupBytes() / rt::kPartitionPages; }
  /// Bytes of one position of all heads.
  int64_t positionBytes() const { return pageBytes() / rt::kPagePositions; }
};

} // namespace isthmus
