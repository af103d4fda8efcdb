//===- Blocks.h - the blocks of GGUF, taken apart ---------------*- C++ -*-===//
//
// As ggml defines them (ggml-common.h). All fields little-endian.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Import/Checkpoint.h"
#include "isthmus/Weights/PackedLayout.h"

#include <cstdint>

namespace isthmus::weights {

/// One block of a file. Value i, in group g of its layout, is
/// scale * scales[g] * (q[i] - zero) + offset * offsets[g].
struct Block {
  static constexpr int64_t kMostValues = kSuperBlock, kMostGroups = 16;
  int16_t q[kMostValues]; ///< of q8_0 with a sign, else from 0 on
  _Float16 scale, offset; ///< of all values
  int8_t scales[kMostGroups], offsets[kMostGroups]; ///< 1 unless in groups
};

/// The format that keeps the blocks of `dtype`, or f32 if it has none.
PackedFormat formatOf(import::DType dtype);

/// Takes apart the block at `bytes`, of a format that isBlocks.
void readBlock(PackedFormat format, const uint8_t *bytes, Block &block);

} // namespace isthmus::weights
