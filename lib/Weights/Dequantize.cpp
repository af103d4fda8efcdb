//===- Dequantize.cpp - decodes checkpoint formats to f32 -----------------===//
#include "isthmus/Weights/RowOps.h"

#include "Blocks.h"

#include <cmath>
#include <cstring>

using namespace isthmus;
using import::DType;

namespace {
float half(const uint8_t *bytes) {
  _Float16 value;
  std::memcpy(&value, bytes, 2);
  return float(value);
}

void decodeBlock(const PackedLayout &layout, const uint8_t *bytes,
                 std::span<float> out) {
  weights::Block block;
  weights::readBlock(layout.format, bytes, block);
  const auto group = size_t(layout.group());
  const int zero = int(layout.zero());
  const bool hasOffsets = layout.hasOffsets();
  for (size_t g = 0; g < out.size() / group; ++g) {
    const float scale = float(block.scale) * float(block.scales[g]);
    const float offset = float(block.offset) * float(block.offsets[g]);
    const int16_t *q = block.q + g * group;
    std::span<float> own = out.subspan(g * group, group);
    for (size_t i = 0; i < group; ++i)
      own[i] = scale * float(q[i] - zero);
    for (size_t i = 0; hasOffsets && i < group; ++i)
      own[i] += offset;
  }
}
} // namespace

void weights::dequantize(DType dtype, const std::byte *source,
                         std::span<float> out) {
  const auto *bytes = reinterpret_cast<const uint8_t *>(source);
  switch (dtype) {
  case DType::F32:
    std::memcpy(out.data(), bytes, out.size_bytes());
    return;
  case DType::F16:
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = half(bytes + 2 * i);
    return;
  case DType::BF16:
    for (size_t i = 0; i < out.size(); ++i) {
      uint32_t bits =
          (uint32_t(bytes[2 * i]) << 16) | (uint32_t(bytes[2 * i + 1]) << 24);
      std::memcpy(&out[i], &bits, 4);
    }
    return;
  case DType::U8:
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = float(bytes[i]);
    return;
  case DType::I8:
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = float(int8_t(bytes[i]));
    return;
  case DType::U4:
  case DType::I4:
    for (size_t i = 0; i < out.size(); ++i) {
      const int value = bytes[i / 2] >> (i % 2 * 4) & 15;
      out[i] = float(dtype == DType::I4 ? (value ^ 8) - 8 : value);
    }
    return;
  default:
    break;
  }
  const import::BlockSize block = import::blockSizeOf(dtype);
  const PackedLayout layout{formatOf(dtype), 0, 0};
  for (size_t i = 0; i < out.size() / block.values; ++i)
    decodeBlock(layout, bytes + i * block.bytes,
                out.subspan(i * block.values, block.values));
}

void weights::generate(uint64_t seed, uint64_t first, int64_t inputs,
                       std::span<float> out) {
  const float scale =
      inputs ? std::sqrt(3.0f / float(inputs)) : std::sqrt(3.0f) * 0.01f;
  for (size_t i = 0; i < out.size(); ++i) {
    // SplitMix64 of (seed, index): any part of the stream is at hand.
    uint64_t z = seed * 0x9E3779B97F4A7C15u + (first + i) * 0xD1B54A32D192ED03u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    float unit = float(int32_t(z >> 40)) * 0x1p-23f - 1.0f;
    out[i] = unit * scale + (inputs ? 0.0f : 1.0f);
  }
}
