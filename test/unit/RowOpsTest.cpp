#include "isthmus/Weights/RowOps.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

using namespace isthmus;
using namespace isthmus::weights;

static std::vector<float> randomRow(size_t size, float shift = 0) {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(shift, 1);
  std::vector<float> row(size);
  for (float &v : row)
    v = normal(generator);
  return row;
}

TEST(RowOps, Prune2of4KeepsTheLargestTwo) {
  std::vector<float> row = {1, -3, 2, 0.5f, 4, 4, 4, 4};
  prune2of4(row);
  EXPECT_EQ(row, (std::vector<float>{0, -3, 2, 0, 4, 4, 0, 0}));
}

TEST(RowOps, PruneUnstructuredTakesExactlyTheFraction) {
  std::vector<float> row = randomRow(100);
  std::vector<float> original = row;
  pruneUnstructured(row, 0.3);
  float largestGone = 0, leastKept = INFINITY;
  size_t gone = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    if (row[i] == 0) {
      ++gone;
      largestGone = std::max(largestGone, std::fabs(original[i]));
    } else {
      leastKept = std::min(leastKept, std::fabs(row[i]));
    }
  }
  EXPECT_EQ(gone, 30u);
  EXPECT_LE(largestGone, leastKept);
}

TEST(RowOps, Int8IsWithinHalfAStep) {
  std::vector<float> row = randomRow(32);
  std::vector<int8_t> q(32);
  const auto scale = float(quantizeInt8(row, 127, q.data()));
  for (size_t i = 0; i < 32; ++i)
    EXPECT_NEAR(scale * float(q[i]), row[i], scale * 0.6f);
}

TEST(RowOps, SevenBitsStayWithin64) {
  std::vector<float> row = randomRow(32);
  std::vector<int8_t> q(32);
  const auto scale = float(quantizeInt8(row, 64, q.data()));
  int largest = 0;
  for (size_t i = 0; i < 32; ++i) {
    largest = std::max(largest, std::abs(int(q[i])));
    EXPECT_NEAR(scale * float(q[i]), row[i], scale * 0.6f);
  }
  EXPECT_EQ(largest, 64);
}

TEST(RowOps, Int8OfZerosAndOfTinyValues) {
  std::vector<float> zeros(32, 0.0f), tiny(32, 1e-38f);
  std::vector<int8_t> q(32, 1);
  quantizeInt8(zeros, 127, q.data());
  EXPECT_EQ(q[5], 0);
  q.assign(32, 1);
  quantizeInt8(tiny, 127, q.data());
  EXPECT_EQ(q[5], 0);
}

TEST(RowOps, Int4FitsAnAffineGridNearlyExactly) {
  // What Q4_1 files hold: scale * q + minimum in each group.
  std::vector<float> row;
  for (int i = 0; i < 128; ++i)
    row.push_back(0.02f * float((i * 7) % 16) - 0.137f);
  Int4Row quantized = quantizeInt4(row);
  for (size_t i = 0; i < row.size(); ++i)
    EXPECT_NEAR(quantized.value(i), row[i], 0.002f);
}

TEST(RowOps, Int4KeepsTheStepsOfFourBitsThatDoNotUseThemAll) {
  // What Q4_0 and symmetric ONNX files hold: one end at -8, the other where it
  // happens to be.
  std::vector<float> row;
  for (int i = 0; i < 128; ++i)
    row.push_back(0.02f * float((i * 5) % (9 + i / 32) - 8));
  Int4Row grid = quantizeInt4(row, true), fitted = quantizeInt4(row);
  double error = 0, other = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_NEAR(grid.value(i), row[i], 0.001f);
    error += std::pow(grid.value(i) - row[i], 2);
    other += std::pow(fitted.value(i) - row[i], 2);
  }
  EXPECT_LT(error, other / 4);
  // What is on no grid is fitted as ever.
  row = randomRow(128, 0.5f);
  grid = quantizeInt4(row, true), fitted = quantizeInt4(row);
  for (size_t i = 0; i < row.size(); ++i)
    EXPECT_EQ(grid.value(i), fitted.value(i));
}

TEST(RowOps, Int4BeatsSymmetricRoundingOnShiftedValues) {
  std::vector<float> row = randomRow(1024, 0.5f);
  Int4Row quantized = quantizeInt4(row);
  double error = 0, symmetric = 0;
  for (size_t g = 0; g < row.size(); g += 32) {
    float largest = 0;
    for (size_t i = g; i < g + 32; ++i)
      largest = std::max(largest, std::fabs(row[i]));
    for (size_t i = g; i < g + 32; ++i) {
      error += std::pow(quantized.value(i) - row[i], 2);
      float step = largest / 8;
      symmetric += std::pow(
          step * std::clamp(std::round(row[i] / step), -8.f, 7.f) - row[i], 2);
    }
  }
  EXPECT_LT(error, symmetric);
}

/// The mean squared error of a quantised row.
template <typename Row>
static double errorOf(const Row &quantized, const std::vector<float> &row) {
  double error = 0;
  for (size_t i = 0; i < row.size(); ++i)
    error += std::pow(quantized.value(i) - row[i], 2);
  return error / double(row.size());
}

TEST(RowOps, SteppedInt4StaysWithinBytes) {
  for (float shift : {0.0f, 0.7f, -30.0f}) {
    std::vector<float> row = randomRow(1024, shift);
    row[77] = 40; // an outlier, and groups that are small beside it
    std::fill(row.begin() + 128, row.begin() + 160, 0.25f);
    std::fill(row.begin() + 160, row.begin() + 192, 0.0f);
    for (const auto &group : quantizeInt4Stepped(row).groups) {
      EXPECT_GE(group.step, 1);
      EXPECT_LE(group.step, 17);
      EXPECT_GE(group.offset - 8 * group.step, -128);
      EXPECT_LE(group.offset + 7 * group.step, 127);
    }
  }
}

TEST(RowOps, SteppedInt4IsNearlyAsExactAsWithScalesOfGroups) {
  std::vector<float> row = randomRow(2048, 0.2f);
  EXPECT_LT(errorOf(quantizeInt4Stepped(row), row),
            1.1 * errorOf(quantizeInt4(row), row));
}

TEST(RowOps, SteppedInt4OfZerosAndOfTinyValues) {
  std::vector<float> zeros(64, 0.0f), tiny(64, 1e-38f);
  for (const auto &row : {zeros, tiny})
    EXPECT_EQ(quantizeInt4Stepped(row).value(33), 0.0f);
}

TEST(RowOps, PackedInt8LiesAsDocumented) {
  PackedLayout layout{PackedFormat::Int8, 17, 128};
  std::vector<float> row = randomRow(128);
  const float *rows[1] = {row.data()};
  std::vector<std::byte> panel(size_t(layout.panelBytes()));
  packPanel(layout, rows, panel.data());
  std::vector<int8_t> second(64);
  quantizeInt8({row.data() + 64, 64}, 127, second.data());
  // Input 4c + i of output 0 in group 1; the scales of both fill a line.
  const auto *group =
      reinterpret_cast<const int8_t *>(panel.data()) + 64 + 16 * 64;
  EXPECT_EQ(group[3 * 64 + 0 * 4 + 2], second[14]);
  EXPECT_EQ(layout.panels(), 2);
}

TEST(RowOps, PackedInt8RowsLieAsDocumented) {
  PackedLayout layout{PackedFormat::Int8, 17, 128, /*oneScale=*/true};
  std::vector<float> row = randomRow(128);
  const float *rows[1] = {row.data()};
  std::vector<std::byte> panel(size_t(layout.panelBytes()));
  EXPECT_EQ(panel.size(), 64 + 16u * 128);
  packPanel(layout, rows, panel.data());
  std::vector<int8_t> q(128);
  const _Float16 scale = quantizeInt8(row, 127, q.data());
  const auto *values = reinterpret_cast<const int8_t *>(panel.data()) + 64;
  EXPECT_EQ(values[(64 / 4 + 3) * 64 + 0 * 4 + 2], q[64 + 14]);
  float stored;
  std::memcpy(&stored, panel.data(), sizeof(stored));
  EXPECT_EQ(stored, float(scale));
}

TEST(RowOps, PackedSteppedInt4LiesAsDocumented) {
  PackedLayout layout{PackedFormat::Int4, 17, 128, /*oneScale=*/true};
  std::vector<float> first = randomRow(128, 1), row = randomRow(128);
  const float *rows[2] = {first.data(), row.data()};
  std::vector<std::byte> panel(size_t(layout.panelBytes()));
  EXPECT_EQ(panel.size(), 64 + 4 * 32 + 16u * 64);
  packPanel(layout, rows, panel.data());
  const Int4SteppedRow quantized = quantizeInt4Stepped(row);
  float scale;
  std::memcpy(&scale, panel.data() + 4, sizeof(scale));
  EXPECT_EQ(scale, quantized.scale);
  const auto *factors = reinterpret_cast<const int8_t *>(panel.data()) + 64;
  EXPECT_EQ(factors[2 * 32 + 2], quantized.groups[2].step);
  EXPECT_EQ(factors[2 * 32 + 3], quantized.groups[2].offset);
  const auto *values =
      reinterpret_cast<const uint8_t *>(panel.data()) + 64 + 4 * 32;
  const uint8_t both = values[2 * 256 + 3 * 64 + 1 * 4 + 2];
  EXPECT_EQ(both & 15, quantized.groups[2].q[14]);
  EXPECT_EQ(both >> 4, quantized.groups[2].q[16 + 14]);
}

TEST(RowOps, BF16RoundsToNearestEven) {
  EXPECT_EQ(toBF16(1.0f), 0x3F80);
  EXPECT_EQ(toBF16(1.00390625f), 0x3F80); // a tie: to even
  EXPECT_EQ(toBF16(1.01171875f), 0x3F82); // the tie above: to even
  EXPECT_EQ(toBF16(1.00390637f), 0x3F81); // just above a tie
  EXPECT_EQ(toBF16(3.4e38f), 0x7F80);     // past the largest: infinity
  EXPECT_TRUE(std::isnan(roundToBF16(NAN)));
  EXPECT_EQ(roundToBF16(-2.5f), -2.5f);
}

TEST(PackPanel, BF16PutsPairsOfInputsSideBySide) {
  PackedLayout layout{PackedFormat::BF16, 17, 4};
  std::vector<float> a = {1, 2, 3, 4}, b = {5, 6, 7, 8};
  const float *rows[] = {a.data(), b.data()};
  std::vector<std::byte> panel(size_t(layout.panelBytes()));
  packPanel(layout, rows, panel.data());
  const auto *values = reinterpret_cast<const uint16_t *>(panel.data());
  EXPECT_EQ(values[0], toBF16(1));
  EXPECT_EQ(values[1], toBF16(2));
  EXPECT_EQ(values[2], toBF16(5));
  EXPECT_EQ(values[16 * 2 + 2 + 1], toBF16(8));
  EXPECT_EQ(values[2 * 2], 0); // outputs that do not exist
  EXPECT_EQ(layout.panels(), 2);
}

TEST(Dequantize, KnownBlocks) {
  // q4_0: d = 0.5, nibbles 0 and 15.
  std::vector<uint8_t> block(18, 0xF0);
  _Float16 d = _Float16(0.5f);
  std::memcpy(block.data(), &d, 2);
  std::vector<float> out(32);
  dequantize(import::DType::Q4_0,
             reinterpret_cast<const std::byte *>(block.data()), out);
  EXPECT_EQ(out[0], -4.0f);
  EXPECT_EQ(out[16], 3.5f);
  // bf16: the upper half of an f32.
  uint16_t one = 0x3F80;
  float value = 0;
  dequantize(import::DType::BF16, reinterpret_cast<const std::byte *>(&one),
             {&value, 1});
  EXPECT_EQ(value, 1.0f);
}

namespace {
float halfAt(const uint8_t *bytes) {
  _Float16 value;
  std::memcpy(&value, bytes, sizeof(value));
  return float(value);
}

/// Input i of output o of a panel, as PackedLayout.h says that blocks lie.
float valueAt(const PackedLayout &layout, const uint8_t *panel, int64_t o,
              int64_t i) {
  const int64_t bits = bitsOf(layout.format), size = layout.group();
  const int64_t g = i / size, j = i % size, half = size / 2;
  const uint8_t *factors =
      panel + layout.factorsOffset() + g * layout.factorBytes();
  const uint8_t *values =
      panel + layout.valuesOffset() + g * layout.valueBytes();
  const uint8_t *super = panel + i / 256 * layout.superBytes();
  if (layout.format == PackedFormat::Q8_0)
    return halfAt(factors + 2 * o) *
           float(int8_t(values[j / 4 * 64 + 4 * o + j % 4]));
  int q = values[j % half / 4 * 64 + 4 * o + j % 4] >> (j / half * 4) & 15;
  if (bits > 4)
    q |= (values[16 * half + 4 * o + j % 4] >> (j / 4 * (bits - 4)) &
          ((1 << (bits - 4)) - 1))
         << 4;
  switch (layout.format) {
  case PackedFormat::Q4_1:
  case PackedFormat::Q5_1:
    return halfAt(factors + 2 * o) * float(q) + halfAt(factors + 32 + 2 * o);
  case PackedFormat::Q4_K:
  case PackedFormat::Q5_K:
    return halfAt(super + 2 * o) * float(factors[o]) * float(q) +
           halfAt(super + 32 + 2 * o) * float(int8_t(factors[16 + o]));
  case PackedFormat::Q6_K:
    return halfAt(super + 2 * o) * float(int8_t(factors[o])) * float(q - 32);
  default:
    return halfAt(factors + 2 * o) * float(q - (1 << (bits - 1)));
  }
}
} // namespace

TEST(PackBlocks, KeepsEveryValueOfEveryFormat) {
  constexpr int64_t kRows = 3, kInputs = 512;
  const std::pair<import::DType, PackedFormat> formats[] = {
      {import::DType::Q8_0, PackedFormat::Q8_0},
      {import::DType::Q4_0, PackedFormat::Q4_0},
      {import::DType::Q4_1, PackedFormat::Q4_1},
      {import::DType::Q5_0, PackedFormat::Q5_0},
      {import::DType::Q5_1, PackedFormat::Q5_1},
      {import::DType::Q4_K, PackedFormat::Q4_K},
      {import::DType::Q5_K, PackedFormat::Q5_K},
      {import::DType::Q6_K, PackedFormat::Q6_K}};
  std::mt19937 random(5);
  for (auto [dtype, format] : formats) {
    const import::BlockSize block = import::blockSizeOf(dtype);
    const size_t rowBytes = kInputs / block.values * block.bytes;
    std::vector<std::byte> file(kRows * rowBytes);
    for (std::byte &byte : file)
      byte = std::byte(random());
    // Bits of any kind but for the floats, of which some would be no numbers.
    const _Float16 scale = _Float16(0.0123f);
    for (size_t at = 0; at < file.size(); at += block.bytes)
      for (size_t offset : format == PackedFormat::Q6_K
                               ? std::vector<size_t>{208}
                               : std::vector<size_t>{0, 2})
        std::memcpy(&file[at + offset], &scale, 2);
    const PackedLayout layout{format, kRows, kInputs};
    const std::byte *rows[kRows];
    for (size_t r = 0; r < kRows; ++r)
      rows[r] = file.data() + r * rowBytes;
    std::vector<std::byte> panel(size_t(layout.panelBytes()));
    packBlocks(layout, rows, panel.data());
    std::vector<float> expected(kInputs);
    for (int64_t o = 0; o < kRows; ++o) {
      dequantize(dtype, rows[o], expected);
      for (int64_t i = 0; i < kInputs; ++i)
        EXPECT_EQ(
            valueAt(layout, reinterpret_cast<uint8_t *>(panel.data()), o, i),
            expected[size_t(i)])
            << import::nameOf(dtype) << " output " << o << " input " << i;
    }
  }
}

TEST(Generate, IsTheSameFromAnyStart) {
  std::vector<float> all(64), part(16);
  generate(5, 0, 64, all);
  generate(5, 48, 64, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + 48));
  EXPECT_NE(all[0], all[1]);
}
