#include "isthmus/Weights/GraphPacking.h"

#include <cstring>
#include <gtest/gtest.h>
#include <numeric>

using namespace isthmus;
using rt::DataType;

/// What a function gives, as numbers.
template <typename T>
static std::vector<T>
collect(const std::function<void(const PackSink &)> &pack) {
  std::vector<std::byte> bytes;
  pack([&](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
  });
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

TEST(GraphPacking, FloatsStandInPanels) {
  constexpr int64_t kRows = 3, kColumns = 18;
  std::vector<float> matrix(kRows * kColumns), turned(matrix.size());
  std::iota(matrix.begin(), matrix.end(), 1.0f);
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t c = 0; c < kColumns; ++c)
      turned[size_t(c * kRows + r)] = matrix[size_t(r * kColumns + c)];
  for (bool isTurned : {false, true}) {
    const auto &values = isTurned ? turned : matrix;
    auto packed = collect<float>([&](const PackSink &sink) {
      packFloats({std::as_bytes(std::span(values)), DataType::F32, kRows,
                  kColumns, isTurned},
                 sink);
    });
    ASSERT_EQ(packed.size(), size_t(2 * kRows * 16));
    EXPECT_EQ(packed[16 + 5], matrix[kColumns + 5]);
    EXPECT_EQ(packed[(kRows + 2) * 16 + 1], matrix[2 * kColumns + 17]);
    EXPECT_EQ(packed[(kRows + 2) * 16 + 2], 0);
  }
}

TEST(GraphPacking, BytesGetASignAndStandByFours) {
  constexpr int64_t kRows = 5, kColumns = 17;
  std::vector<uint8_t> matrix(kRows * kColumns);
  std::iota(matrix.begin(), matrix.end(), uint8_t(100));
  const MatrixView view{std::as_bytes(std::span(matrix)), DataType::U8, kRows,
                        kColumns, false};
  auto packed =
      collect<int8_t>([&](const PackSink &sink) { packIntegers(view, sink); });
  ASSERT_EQ(packed.size(), size_t(2 * 2 * 16 * 4));
  EXPECT_EQ(packed[3 * 4 + 2], int8_t(matrix[2 * kColumns + 3] - 128));
  EXPECT_EQ(packed[16 * 4 + 3 * 4], int8_t(matrix[4 * kColumns + 3] - 128));
  EXPECT_EQ(packed[16 * 4 + 3 * 4 + 1], 0);
  auto sums =
      collect<int32_t>([&](const PackSink &sink) { packSums(view, sink); });
  ASSERT_EQ(sums.size(), size_t(kColumns));
  int32_t wanted = 0;
  for (int64_t r = 0; r < kRows; ++r)
    wanted += matrix[size_t(r * kColumns + 16)] - 128;
  EXPECT_EQ(sums[16], wanted);
}

TEST(GraphPacking, FiltersLoseTheirZeroPoint) {
  // Two channels, three inputs, two taps.
  const std::vector<int8_t> filters = {1, 2,  3,  4,  5,  6,
                                       7, -8, -9, 10, 11, -128};
  const std::vector<int32_t> zeros = {1, 127};
  auto packed = collect<int16_t>([&](const PackSink &sink) {
    packFilters(std::as_bytes(std::span(filters)), DataType::I8, 2, 3, 2, zeros,
                sink);
  });
  EXPECT_EQ(packed, (std::vector<int16_t>{0, 2, 4, 0, 1, 3, 5, 0, -120, -136,
                                          -116, 0, -135, -117, -255, 0}));
}
