//===- Dequantize.cpp - decodes checkpoint formats to f32 -----------------===//
//
// Block formats as ggml defines them (ggml-common.h). All fields little-endian.
//
//===----------------------------------------------------------------------===//
#include "isthmus/Weights/RowOps.h"

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

/// Six-bit scale and minimum `j` of eight, packed in 12 bytes (q4_k, q5_k).
void scaleAndMin(const uint8_t *packed, int j, int &scale, int &minimum) {
  if (j < 4) {
    scale = packed[j] & 63;
    minimum = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4);
    minimum = (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4);
  }
}

void decodeQ8_0(const uint8_t *b, float *out) {
  float d = half(b);
  for (int i = 0; i < 32; ++i)
    out[i] = d * float(int8_t(b[2 + i]));
}

void decodeQ4_0(const uint8_t *b, float *out) {
  float d = half(b);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float((b[2 + i] & 15) - 8);
    out[i + 16] = d * float((b[2 + i] >> 4) - 8);
  }
}

void decodeQ4_1(const uint8_t *b, float *out) {
  float d = half(b), m = half(b + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float(b[4 + i] & 15) + m;
    out[i + 16] = d * float(b[4 + i] >> 4) + m;
  }
}

void decodeQ5_0(const uint8_t *b, float *out) {
  float d = half(b);
  uint32_t high;
  std::memcpy(&high, b + 2, 4);
  for (int i = 0; i < 16; ++i) {
    int low = (b[6 + i] & 15) | int((high >> i & 1) << 4);
    int top = (b[6 + i] >> 4) | int((high >> (i + 16) & 1) << 4);
    out[i] = d * float(low - 16);
    out[i + 16] = d * float(top - 16);
  }
}

void decodeQ4_K(const uint8_t *b, float *out) {
  float d = half(b), dmin = half(b + 2);
  const uint8_t *scales = b + 4, *q = b + 16;
  for (int pair = 0; pair < 4; ++pair, q += 32, out += 64)
    for (int part = 0; part < 2; ++part) {
      int scale, minimum;
      scaleAndMin(scales, 2 * pair + part, scale, minimum);
      float s = d * float(scale), m = dmin * float(minimum);
      for (int i = 0; i < 32; ++i)
        out[32 * part + i] = s * float(q[i] >> (4 * part) & 15) - m;
    }
}

void decodeQ5_K(const uint8_t *b, float *out) {
  float d = half(b), dmin = half(b + 2);
  const uint8_t *scales = b + 4, *high = b + 16, *q = b + 48;
  for (int pair = 0; pair < 4; ++pair, q += 32, out += 64)
    for (int part = 0; part < 2; ++part) {
      int scale, minimum, j = 2 * pair + part;
      scaleAndMin(scales, j, scale, minimum);
      float s = d * float(scale), m = dmin * float(minimum);
      for (int i = 0; i < 32; ++i) {
        int value = (q[i] >> (4 * part) & 15) + ((high[i] >> j & 1) << 4);
        out[32 * part + i] = s * float(value) - m;
      }
    }
}

void decodeQ6_K(const uint8_t *b, float *out) {
  const uint8_t *low = b, *high = b + 128;
  const auto *scales = reinterpret_cast<const int8_t *>(b + 192);
  float d = half(b + 208);
  for (int n = 0; n < 2; ++n, low += 64, high += 32, scales += 8, out += 128)
    for (int i = 0; i < 32; ++i) {
      const int values[4] = {(low[i] & 15) | ((high[i] & 3) << 4),
                             (low[i + 32] & 15) | ((high[i] >> 2 & 3) << 4),
                             (low[i] >> 4) | ((high[i] >> 4 & 3) << 4),
                             (low[i + 32] >> 4) | ((high[i] >> 6 & 3) << 4)};
      for (int k = 0; k < 4; ++k)
        out[32 * k + i] =
            d * float(scales[2 * k + i / 16]) * float(values[k] - 32);
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
  void (*decode)(const uint8_t *, float *) = nullptr;
  switch (dtype) {
  case DType::Q8_0:
    decode = decodeQ8_0;
    break;
  case DType::Q4_0:
    decode = decodeQ4_0;
    break;
  case DType::Q4_1:
    decode = decodeQ4_1;
    break;
  case DType::Q5_0:
    decode = decodeQ5_0;
    break;
  case DType::Q4_K:
    decode = decodeQ4_K;
    break;
  case DType::Q5_K:
    decode = decodeQ5_K;
    break;
  default:
    decode = decodeQ6_K;
    break;
  }
  import::BlockSize block = import::blockSizeOf(dtype);
  for (size_t i = 0; i < out.size() / block.values; ++i)
    decode(bytes + i * block.bytes, out.data() + i * block.values);
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
