//===- RowOps.cpp - what is done to rows of weights -----------------------===//
#include "isthmus/Weights/RowOps.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

using namespace isthmus;
using namespace isthmus::weights;

static constexpr int kGroup = PackedLayout::kGroup;
static constexpr int kPanel = PackedLayout::kPanel;

#if defined(__x86_64__)
#define ISTHMUS_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define ISTHMUS_CLONES
#endif

/// Rounds to the nearest integer, ties to even, for |x| < 2^22.
static inline float roundNearest(float x) {
  constexpr float magic = 12582912.0f; // 1.5 * 2^23
  return (x + magic) - magic;
}

void weights::prune2of4(std::span<float> row) {
  for (size_t i = 0; i + 4 <= row.size(); i += 4) {
    int order[4] = {0, 1, 2, 3};
    std::sort(order, order + 4, [&](int a, int b) {
      float x = std::fabs(row[i + size_t(a)]), y = std::fabs(row[i + size_t(b)]);
      return x != y ? x > y : a < b;
    });
    row[i + size_t(order[2])] = 0;
    row[i + size_t(order[3])] = 0;
  }
}

void weights::pruneUnstructured(std::span<float> row, double sparsity) {
  auto count = size_t(double(row.size()) * sparsity);
  std::vector<uint32_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + ptrdiff_t(count), order.end(),
                   [&](uint32_t a, uint32_t b) {
                     float x = std::fabs(row[a]), y = std::fabs(row[b]);
                     return x != y ? x < y : a < b;
                   });
  for (size_t i = 0; i < count; ++i)
    row[order[i]] = 0;
}

ISTHMUS_CLONES
static void int8Group(const float *x, QuantizedGroup &out) {
  float largest = 0;
  for (int i = 0; i < kGroup; ++i)
    largest = std::max(largest, std::fabs(x[i]));
  out.scale = _Float16(largest / 127.0f);
  float inverse = out.scale > _Float16(0) ? 1.0f / float(out.scale) : 0.0f;
  for (int i = 0; i < kGroup; ++i)
    out.q[i] = int8_t(
        std::clamp(roundNearest(x[i] * inverse), -127.0f, 127.0f));
}

/// Tries `kCandidates` scales around the one that maps the value of largest
/// magnitude to -8, each improved by least squares, and keeps the best.
ISTHMUS_CLONES
static void int4Group(const float *x, QuantizedGroup &out) {
  constexpr int kCandidates = 19;
  float extreme = 0;
  for (int i = 0; i < kGroup; ++i)
    if (std::fabs(x[i]) > std::fabs(extreme))
      extreme = x[i];
  std::memset(out.q, 0, sizeof(out.q));
  out.scale = _Float16(0);
  if (!(std::fabs(extreme) > 1e-30f))
    return;
  float best = INFINITY;
  for (int c = 0; c < kCandidates; ++c) {
    float inverse = -(8.0f + 0.1f * float(c - kCandidates / 2)) / extreme;
    float q[kGroup];
    float products = 0, squares = 0;
    for (int i = 0; i < kGroup; ++i) {
      q[i] = std::min(std::max(roundNearest(x[i] * inverse), -8.0f), 7.0f);
      products += x[i] * q[i];
      squares += q[i] * q[i];
    }
    if (!(squares > 0))
      continue;
    _Float16 scale = _Float16(products / squares);
    float error = 0;
    for (int i = 0; i < kGroup; ++i) {
      float difference = x[i] - float(scale) * q[i];
      error += difference * difference;
    }
    if (error < best) {
      best = error;
      out.scale = scale;
      for (int i = 0; i < kGroup; ++i)
        out.q[i] = int8_t(q[i]);
    }
  }
}

QuantizedGroup weights::quantizeInt8(const float *values) {
  QuantizedGroup group;
  int8Group(values, group);
  return group;
}

QuantizedGroup weights::quantizeInt4(const float *values) {
  QuantizedGroup group;
  int4Group(values, group);
  return group;
}

static void packFloats(const PackedLayout &layout,
                       std::span<const float *const> rows, std::byte *out) {
  int64_t inputs = std::max<int64_t>(layout.inputs, 1);
  if (layout.format == PackedFormat::F16) {
    auto *values = reinterpret_cast<_Float16 *>(out);
    for (int64_t i = 0; i < inputs; ++i)
      for (size_t o = 0; o < rows.size(); ++o)
        values[i * kPanel + int64_t(o)] = _Float16(rows[o][i]);
    return;
  }
  auto *values = reinterpret_cast<float *>(out);
  for (int64_t i = 0; i < inputs; ++i)
    for (size_t o = 0; o < rows.size(); ++o)
      values[i * kPanel + int64_t(o)] = rows[o][i];
}

void weights::packPanel(const PackedLayout &layout,
                        std::span<const float *const> rows, std::byte *out) {
  std::memset(out, 0, size_t(layout.panelBytes()));
  if (layout.format == PackedFormat::F32 || layout.format == PackedFormat::F16)
    return packFloats(layout, rows, out);
  bool int4 = layout.format == PackedFormat::Int4;
  const int64_t valueBytes = layout.blockBytes() - kPanel * 2;
  for (int64_t g = 0; g < layout.inputs / kGroup; ++g) {
    auto *block = reinterpret_cast<uint8_t *>(out) + g * layout.blockBytes();
    auto *scales = reinterpret_cast<_Float16 *>(block + valueBytes);
    for (int o = 0; o < kPanel; ++o) {
      QuantizedGroup group{};
      if (size_t(o) < rows.size())
        group = int4 ? quantizeInt4(rows[size_t(o)] + g * kGroup)
                     : quantizeInt8(rows[size_t(o)] + g * kGroup);
      std::memcpy(&scales[o], &group.scale, 2);
      for (int i = 0; i < kGroup; ++i) {
        int in = int4 ? i % 16 : i;
        uint8_t &byte = block[in / 4 * 64 + o * 4 + in % 4];
        if (!int4)
          byte = uint8_t(group.q[i]);
        else
          byte = uint8_t(byte | uint8_t(group.q[i] + 8) << (i < 16 ? 0 : 4));
      }
    }
  }
}
