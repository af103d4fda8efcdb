//===- Blocks.cpp - the blocks of GGUF, taken apart -----------------------===//
#include "Blocks.h"

#include "isthmus/Weights/RowOps.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

using namespace isthmus;
using namespace isthmus::weights;
using import::DType;

namespace {
_Float16 half(const uint8_t *bytes) {
  _Float16 value;
  std::memcpy(&value, bytes, 2);
  return value;
}

/// Of `count` bytes the low nibbles first, then the high ones.
void readNibbles(const uint8_t *bytes, int count, int16_t *q) {
  for (int i = 0; i < count; ++i) {
    q[i] = bytes[i] & 15;
    q[i + count] = bytes[i] >> 4;
  }
}

/// The fifth bits of 32 values.
void addFifthBits(const uint8_t *bytes, int16_t *q) {
  for (int i = 0; i < 32; ++i)
    q[i] = int16_t(q[i] | (bytes[i / 8] >> (i % 8) & 1) << 4);
}

/// The six-bit scales and minima of q4_k and q5_k, packed in 12 bytes.
void readScales(const uint8_t *packed, Block &block) {
  for (int j = 0; j < 8; ++j) {
    const int scale = j < 4
                          ? packed[j] & 63
                          : (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4);
    const int minimum = j < 4 ? packed[j + 4] & 63
                              : (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4);
    block.scales[j] = int8_t(scale);
    block.offsets[j] = int8_t(-minimum);
  }
}

/// The factors of q4_k and q5_k, and the lower four bits of their values.
void readLower(const uint8_t *b, const uint8_t *nibbles, Block &block) {
  readScales(b + 4, block);
  for (int pair = 0; pair < 4; ++pair)
    readNibbles(nibbles + 32 * pair, 32, block.q + 64 * pair);
}

void readQ5_K(const uint8_t *b, Block &block) {
  readLower(b, b + 48, block);
  for (int i = 0; i < 256; ++i)
    block.q[i] = int16_t(block.q[i] | (b[16 + i % 32] >> (i / 32) & 1) << 4);
}

void readQ6_K(const uint8_t *b, Block &block) {
  for (int part = 0; part < 2; ++part) {
    int16_t *q = block.q + 128 * part;
    const uint8_t *upper = b + 128 + 32 * part;
    const uint8_t *lower = b + 64 * part;
    for (int i = 0; i < 128; ++i)
      q[i] = int16_t((lower[i % 64] >> (i / 64 * 4) & 15) |
                     (upper[i % 32] >> (i / 32 * 2) & 3) << 4);
  }
  std::memcpy(block.scales, b + 192, 16);
}
} // namespace

/// What keeps the blocks of which dtype.
static constexpr std::pair<DType, PackedFormat> kKept[] = {
    {DType::Q8_0, PackedFormat::Q8_0}, {DType::Q4_0, PackedFormat::Q4_0},
    {DType::Q4_1, PackedFormat::Q4_1}, {DType::Q5_0, PackedFormat::Q5_0},
    {DType::Q5_1, PackedFormat::Q5_1}, {DType::Q4_K, PackedFormat::Q4_K},
    {DType::Q5_K, PackedFormat::Q5_K}, {DType::Q6_K, PackedFormat::Q6_K}};

PackedFormat weights::formatOf(DType dtype) {
  for (auto [own, format] : kKept)
    if (own == dtype)
      return format;
  return PackedFormat::F32;
}

/// Values and bytes of a block in a file.
static import::BlockSize sizeOf(PackedFormat format) {
  const auto *kept =
      std::find_if(std::begin(kKept), std::end(kKept),
                   [&](const auto &entry) { return entry.second == format; });
  return import::blockSizeOf(kept->first);
}

void weights::readBlock(PackedFormat format, const uint8_t *b, Block &block) {
  std::fill_n(block.scales, Block::kMostGroups, int8_t(1));
  std::fill_n(block.offsets, Block::kMostGroups, int8_t(1));
  // (A format without offsets has none to read.)
  block.scale = half(format == PackedFormat::Q6_K ? b + 208 : b);
  block.offset =
      PackedLayout{format, 0, 0}.hasOffsets() ? half(b + 2) : _Float16(0);
  switch (format) {
  case PackedFormat::Q4_0:
    return readNibbles(b + 2, 16, block.q);
  case PackedFormat::Q4_1:
    return readNibbles(b + 4, 16, block.q);
  case PackedFormat::Q5_0:
    readNibbles(b + 6, 16, block.q);
    return addFifthBits(b + 2, block.q);
  case PackedFormat::Q5_1:
    readNibbles(b + 8, 16, block.q);
    return addFifthBits(b + 4, block.q);
  case PackedFormat::Q4_K:
    return readLower(b, b + 16, block);
  case PackedFormat::Q5_K:
    return readQ5_K(b, block);
  case PackedFormat::Q6_K:
    return readQ6_K(b, block);
  default: // q8_0
    for (int i = 0; i < 32; ++i)
      block.q[i] = int8_t(b[2 + i]);
  }
}

/// Of output `o` of a group.
static void packGroup(const PackedLayout &layout, const int16_t *q, size_t o,
                      uint8_t *values) {
  const int64_t size = layout.group(), half = size / 2;
  uint8_t *upper = values + PackedLayout::kPanel * half;
  const int64_t bits = bitsOf(layout.format) - 4;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t ofQuad = int64_t(o) * 4 + i % 4;
    if (!hasNibbles(layout.format)) {
      values[i / 4 * 64 + ofQuad] = uint8_t(q[i]);
      continue;
    }
    const int nibble = (q[i] & 15) << (i / half * 4);
    uint8_t &own = values[i % half / 4 * 64 + ofQuad];
    own = uint8_t(own | nibble);
    if (bits > 0)
      upper[ofQuad] = uint8_t(upper[ofQuad] | q[i] >> 4 << (i / 4 * bits));
  }
}

void weights::packBlocks(const PackedLayout &layout,
                         std::span<const std::byte *const> rows,
                         std::byte *out) {
  constexpr auto kPanel = size_t(PackedLayout::kPanel);
  std::memset(out, 0, size_t(layout.panelBytes()));
  auto *bytes = reinterpret_cast<uint8_t *>(out);
  const bool super = hasSuperBlocks(layout.format);
  const import::BlockSize inFile = sizeOf(layout.format);
  const auto size = int64_t(inFile.values);
  const int64_t groups = size / layout.group();
  Block block;
  for (size_t o = 0; o < rows.size(); ++o) {
    const auto *from = reinterpret_cast<const uint8_t *>(rows[o]);
    for (int64_t b = 0; b < layout.inputs / size; ++b) {
      readBlock(layout.format, from, block);
      from += inFile.bytes;
      uint8_t *factors =
          bytes + layout.factorsOffset() + b * groups * layout.factorBytes();
      // Two floats of all values, the second where there are offsets.
      uint8_t *floats = super ? bytes + b * layout.superBytes() : factors;
      std::memcpy(floats + 2 * o, &block.scale, 2);
      if (layout.hasOffsets())
        std::memcpy(floats + 2 * (kPanel + o), &block.offset, 2);
      for (int64_t g = 0; g < groups; ++g, factors += layout.factorBytes()) {
        if (super)
          factors[o] = uint8_t(block.scales[g]);
        if (super && layout.hasOffsets())
          factors[kPanel + o] = uint8_t(block.offsets[g]);
        packGroup(layout, block.q + g * layout.group(), o,
                  bytes + layout.valuesOffset() +
                      (b * groups + g) * layout.valueBytes());
      }
    }
  }
}
