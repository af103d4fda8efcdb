//===- RowOps.cpp - what is done to rows of weights -----------------------===//
#include "isthmus/Weights/RowOps.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

using namespace isthmus;
using namespace isthmus::weights;

static constexpr int kGroup = PackedLayout::kInt4Group;
static constexpr int kPanel = PackedLayout::kPanel;

#if defined(__x86_64__)
#define ISTHMUS_CLONES                                                         \
  __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define ISTHMUS_CLONES
#endif

/// Rounds to the nearest integer, ties to even, for |x| < 2^22.
static inline float roundNearest(float x) {
  constexpr float magic = 12582912.0f; // 1.5 * 2^23
  return (x + magic) - magic;
}

uint16_t weights::toBF16(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value))
    return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float weights::roundToBF16(float value) {
  return std::bit_cast<float>(uint32_t(toBF16(value)) << 16);
}

void weights::prune2of4(std::span<float> row) {
  for (size_t i = 0; i + 4 <= row.size(); i += 4) {
    int order[4] = {0, 1, 2, 3};
    std::sort(order, order + 4, [&](int a, int b) {
      float x = std::fabs(row[i + size_t(a)]),
            y = std::fabs(row[i + size_t(b)]);
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
static _Float16 int8Group(const float *x, size_t size, float most, int8_t *q) {
  float largest = 0;
  for (size_t i = 0; i < size; ++i)
    largest = std::max(largest, std::fabs(x[i]));
  const auto scale = _Float16(largest / most);
  float inverse = scale > _Float16(0) ? 1.0f / float(scale) : 0.0f;
  for (size_t i = 0; i < size; ++i)
    q[i] = int8_t(std::clamp(roundNearest(x[i] * inverse), -most, most));
  return scale;
}

namespace {
struct Fit {
  float scale, offset;
};
} // namespace

/// If at most 15 equal steps lead from the least value to the most, and all are
/// on them: four bits that were rounded before are found again.
ISTHMUS_CLONES
static bool findGrid(const float *x, Fit &fit) {
  float least = x[0], most = x[0];
  for (int i = 0; i < kGroup; ++i) {
    least = std::min(least, x[i]);
    most = std::max(most, x[i]);
  }
  if (!(most - least > 1e-30f))
    return false;
  constexpr float kOff = 0.02f; // of a step; scales were f16 or better
  for (int steps = 1; steps <= 15; ++steps) {
    const float inverse = float(steps) / (most - least);
    float worst = 0;
    for (int i = 0; i < kGroup; ++i) {
      const float q = (x[i] - least) * inverse;
      worst = std::max(worst, std::fabs(q - roundNearest(q)));
    }
    if (worst <= kOff) {
      fit = {(most - least) / float(steps), least};
      return true;
    }
  }
  return false;
}

/// Fits x = scale * q + offset with q in 0..15. Each candidate narrows the
/// range a little, rounds, and solves for the best scale and offset of those q.
ISTHMUS_CLONES
static void fitGroup(const float *x, Fit &best) {
  float least = x[0], most = x[0], sum = 0;
  for (int i = 0; i < kGroup; ++i) {
    least = std::min(least, x[i]);
    most = std::max(most, x[i]);
    sum += x[i];
  }
  best = {0, sum / kGroup};
  if (!(most - least > 1e-30f))
    return;
  constexpr float kShrink[] = {1.0f, 0.96f, 0.92f, 0.88f, 0.83f, 0.78f, 0.72f};
  float bestError = INFINITY;
  for (float shrink : kShrink) {
    float scale = (most - least) * shrink / 15.0f;
    float start = least + (most - least) * (1.0f - shrink) * 0.5f;
    float inverse = 1.0f / scale;
    float q[kGroup];
    float sumQ = 0, sumQQ = 0, sumXQ = 0;
    for (int i = 0; i < kGroup; ++i) {
      float value = std::min(
          std::max(roundNearest((x[i] - start) * inverse), 0.0f), 15.0f);
      q[i] = value;
      sumQ += value;
      sumQQ += value * value;
      sumXQ += x[i] * value;
    }
    float determinant = kGroup * sumQQ - sumQ * sumQ;
    if (!(determinant > 0))
      continue;
    Fit fit{(kGroup * sumXQ - sum * sumQ) / determinant, 0};
    fit.offset = (sum - fit.scale * sumQ) / kGroup;
    float error = 0;
    for (int i = 0; i < kGroup; ++i) {
      float difference = x[i] - (fit.scale * q[i] + fit.offset);
      error += difference * difference;
    }
    if (error < bestError && fit.scale > 0) {
      bestError = error;
      best = fit;
    }
  }
}

ISTHMUS_CLONES
static void roundGroup(const float *x, float scale, float offset, uint8_t *q) {
  float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int i = 0; i < kGroup; ++i)
    q[i] = uint8_t(std::min(
        std::max(roundNearest((x[i] - offset) * inverse), 0.0f), 15.0f));
}

/// Rounds a group to multiples of `scale`: 16 of them, `step` apart. `start`
/// is where the first of them should be. Returns the sum of squared errors.
ISTHMUS_CLONES
static float roundToSteps(const float *x, float scale, float step, float start,
                          Int4SteppedRow::Group &group) {
  const float width = scale * step, inverse = 1.0f / width;
  auto rounded = [&](int i, float first) {
    return std::min(std::max(roundNearest((x[i] - first) * inverse), 0.0f),
                    15.0f);
  };
  // The best first value, for what is rounded from the wanted one.
  float rest = 0;
  for (int i = 0; i < kGroup; ++i)
    rest += x[i] - width * rounded(i, start);
  const float offset =
      std::min(std::max(roundNearest(rest / (kGroup * scale)), -128.0f),
               127.0f - 15.0f * step);
  const float first = scale * offset;
  float error = 0;
  for (int i = 0; i < kGroup; ++i) {
    const float q = rounded(i, first);
    const float difference = x[i] - (first + width * q);
    error += difference * difference;
    group.q[i] = uint8_t(q);
  }
  group.step = int8_t(step);
  group.offset = int8_t(offset + 8.0f * step);
  return error;
}

Int4SteppedRow weights::quantizeInt4Stepped(std::span<const float> row,
                                            bool onGrid) {
  constexpr float kMostStep = 17; // 15 of them are within int8
  const size_t count = row.size() / kGroup;
  std::vector<Fit> fits(count);
  float largest = 0;
  for (size_t g = 0; g < count; ++g) {
    Fit &fit = fits[g];
    if (!onGrid || !findGrid(&row[g * kGroup], fit))
      fitGroup(&row[g * kGroup], fit);
    largest = std::max({largest, std::fabs(fit.offset),
                        std::fabs(fit.offset + 15.0f * fit.scale)});
  }
  Int4SteppedRow result{largest / 127.0f,
                        std::vector<Int4SteppedRow::Group>(count)};
  if (!(result.scale > 1e-30f)) {
    result.scale = 0;
    return result;
  }
  for (size_t g = 0; g < count; ++g) {
    const Fit &fit = fits[g];
    const float below = std::floor(fit.scale / result.scale);
    float least = INFINITY;
    for (float step : {below, below + 1}) {
      step = std::min(std::max(step, 1.0f), kMostStep);
      // About the middle of what was fitted.
      const float start = fit.offset + 7.5f * (fit.scale - step * result.scale);
      Int4SteppedRow::Group group;
      const float error =
          roundToSteps(&row[g * kGroup], result.scale, step, start, group);
      if (error < least) {
        least = error;
        result.groups[g] = group;
      }
    }
  }
  return result;
}

_Float16 weights::quantizeInt8(std::span<const float> values, int64_t largest,
                               int8_t *q) {
  return int8Group(values.data(), values.size(), float(largest), q);
}

Int4Row weights::quantizeInt4(std::span<const float> row, bool onGrid) {
  const size_t count = row.size() / kGroup;
  std::vector<Fit> fits(count);
  Int4Row result{0, 0, std::vector<Int4Row::Group>(count)};
  for (size_t g = 0; g < count; ++g) {
    if (!onGrid || !findGrid(&row[g * kGroup], fits[g]))
      fitGroup(&row[g * kGroup], fits[g]);
    result.rowScale = std::max(result.rowScale, fits[g].scale);
    result.rowOffset = std::max(result.rowOffset, std::fabs(fits[g].offset));
  }
  result.rowScale /= 255.0f;
  result.rowOffset /= 127.0f;
  auto steps = [](float value, float step) {
    return step > 0 ? roundNearest(value / step) : 0.0f;
  };
  for (size_t g = 0; g < count; ++g) {
    Int4Row::Group &group = result.groups[g];
    group.scale = uint8_t(steps(fits[g].scale, result.rowScale));
    group.offset = int8_t(steps(fits[g].offset, result.rowOffset));
    roundGroup(&row[g * kGroup], result.rowScale * float(group.scale),
               result.rowOffset * float(group.offset), group.q);
  }
  return result;
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

static void packBF16(const PackedLayout &layout,
                     std::span<const float *const> rows, std::byte *out) {
  auto *values = reinterpret_cast<uint16_t *>(out);
  for (int64_t i = 0; i < layout.inputs; ++i)
    for (size_t o = 0; o < rows.size(); ++o)
      values[(i / 2 * kPanel + int64_t(o)) * 2 + i % 2] = toBF16(rows[o][i]);
}

static void packInt8(const PackedLayout &layout,
                     std::span<const float *const> rows, uint8_t *out) {
  const auto size = size_t(layout.group());
  std::vector<int8_t> q(size);
  for (size_t g = 0; g < size_t(layout.groups()); ++g) {
    uint8_t *scales = out + int64_t(g) * layout.factorBytes();
    uint8_t *values =
        out + layout.valuesOffset() + int64_t(g) * layout.valueBytes();
    for (size_t o = 0; o < rows.size(); ++o) {
      const _Float16 scale =
          quantizeInt8({rows[o] + g * size, size}, layout.largest(), q.data());
      if (const auto wide = float(scale); layout.oneScale)
        std::memcpy(scales + 4 * o, &wide, 4);
      else
        std::memcpy(scales + 2 * o, &scale, 2);
      for (size_t i = 0; i < size; ++i)
        values[i / 4 * 64 + o * 4 + i % 4] = uint8_t(q[i]);
    }
  }
}

/// Of output `o` of a group.
static void packNibbles(const uint8_t *q, size_t o, uint8_t *values) {
  for (size_t i = 0; i < kGroup / 2; ++i)
    values[i / 4 * 64 + o * 4 + i % 4] = uint8_t(q[i] | q[kGroup / 2 + i] << 4);
}

static void packInt4(const PackedLayout &layout,
                     std::span<const float *const> rows, uint8_t *out,
                     bool onGrid) {
  for (size_t o = 0; o < rows.size(); ++o) {
    Int4Row row = quantizeInt4({rows[o], size_t(layout.inputs)}, onGrid);
    std::memcpy(out + 4 * o, &row.rowScale, 4);
    std::memcpy(out + 4 * kPanel + 4 * o, &row.rowOffset, 4);
    uint8_t *factors = out + layout.factorsOffset();
    uint8_t *values = out + layout.valuesOffset();
    for (const Int4Row::Group &group : row.groups) {
      factors[o] = group.scale;
      factors[kPanel + o] = uint8_t(group.offset);
      packNibbles(group.q, o, values);
      factors += layout.factorBytes();
      values += layout.valueBytes();
    }
  }
}

static void packInt4Stepped(const PackedLayout &layout,
                            std::span<const float *const> rows, uint8_t *out,
                            bool onGrid) {
  for (size_t o = 0; o < rows.size(); ++o) {
    Int4SteppedRow row =
        quantizeInt4Stepped({rows[o], size_t(layout.inputs)}, onGrid);
    std::memcpy(out + 4 * o, &row.scale, 4);
    uint8_t *factors = out + layout.factorsOffset();
    uint8_t *values = out + layout.valuesOffset();
    for (const Int4SteppedRow::Group &group : row.groups) {
      factors[2 * o] = uint8_t(group.step);
      factors[2 * o + 1] = uint8_t(group.offset);
      packNibbles(group.q, o, values);
      factors += layout.factorBytes();
      values += layout.valueBytes();
    }
  }
}

void weights::packPanel(const PackedLayout &layout,
                        std::span<const float *const> rows, std::byte *out,
                        bool onGrid) {
  std::memset(out, 0, size_t(layout.panelBytes()));
  auto *bytes = reinterpret_cast<uint8_t *>(out);
  switch (layout.format) {
  case PackedFormat::F32:
  case PackedFormat::F16:
    return packFloats(layout, rows, out);
  case PackedFormat::BF16:
    return packBF16(layout, rows, out);
  case PackedFormat::Int8:
    return packInt8(layout, rows, bytes);
  case PackedFormat::Int4:
    return layout.oneScale ? packInt4Stepped(layout, rows, bytes, onGrid)
                           : packInt4(layout, rows, bytes, onGrid);
  default:
    break;
  }
  assert(false && "blocks are not made of floats (packBlocks)");
}
