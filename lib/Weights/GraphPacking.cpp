//===- GraphPacking.cpp - matrices of graphs as products read them --------===//
#include "isthmus/Weights/GraphPacking.h"

#include <cstring>

using namespace isthmus;
using rt::DataType;

namespace {
template <typename T> class Elements {
public:
  explicit Elements(const MatrixView &matrix) : matrix(matrix) {}

  /// 0 outside.
  T at(int64_t row, int64_t column) const {
    if (row >= matrix.rows || column >= matrix.columns)
      return 0;
    const int64_t place = matrix.turned ? column * matrix.rows + row
                                        : row * matrix.columns + column;
    T value;
    std::memcpy(&value, matrix.bytes.data() + place * int64_t(sizeof(T)),
                sizeof(T));
    return value;
  }

private:
  const MatrixView &matrix;
};

int64_t blocks(int64_t count, int64_t block) {
  return (count + block - 1) / block;
}

/// A byte of a matrix, with sign.
int8_t signedAt(const MatrixView &matrix, int64_t row, int64_t column) {
  if (row >= matrix.rows || column >= matrix.columns)
    return 0;
  if (matrix.type == DataType::U8)
    return int8_t(Elements<uint8_t>(matrix).at(row, column) - 128);
  return Elements<int8_t>(matrix).at(row, column);
}

template <typename T>
void give(const PackSink &sink, const std::vector<T> &values) {
  sink(std::as_bytes(std::span(values)));
}
} // namespace

void isthmus::packFloats(const MatrixView &matrix, const PackSink &sink) {
  const Elements<float> elements(matrix);
  std::vector<float> panel(size_t(matrix.rows * kGraphPanel));
  for (int64_t p = 0; p < blocks(matrix.columns, kGraphPanel); ++p) {
    for (int64_t row = 0; row < matrix.rows; ++row)
      for (int64_t lane = 0; lane < kGraphPanel; ++lane)
        panel[size_t(row * kGraphPanel + lane)] =
            elements.at(row, p * kGraphPanel + lane);
    give(sink, panel);
  }
}

void isthmus::packIntegers(const MatrixView &matrix, const PackSink &sink) {
  const int64_t quads = blocks(matrix.rows, kGraphQuad);
  std::vector<int8_t> panel(size_t(quads * kGraphPanel * kGraphQuad));
  for (int64_t p = 0; p < blocks(matrix.columns, kGraphPanel); ++p) {
    for (int64_t row = 0; row < quads * kGraphQuad; ++row)
      for (int64_t lane = 0; lane < kGraphPanel; ++lane)
        panel[size_t((row / kGraphQuad * kGraphPanel + lane) * kGraphQuad +
                     row % kGraphQuad)] =
            signedAt(matrix, row, p * kGraphPanel + lane);
    give(sink, panel);
  }
}

void isthmus::packSums(const MatrixView &matrix, const PackSink &sink) {
  std::vector<int32_t> sums(size_t(matrix.columns));
  for (int64_t row = 0; row < matrix.rows; ++row)
    for (int64_t column = 0; column < matrix.columns; ++column)
      sums[size_t(column)] += signedAt(matrix, row, column);
  give(sink, sums);
}

void isthmus::packFilters(std::span<const std::byte> filters, DataType type,
                          int64_t channels, int64_t inputs, int64_t taps,
                          std::span<const int32_t> zeroPoints,
                          const PackSink &sink) {
  const int64_t parts = blocks(inputs, 2);
  std::vector<int16_t> channel(size_t(taps * parts * 2));
  for (int64_t c = 0; c < channels; ++c) {
    const int32_t zero = zeroPoints[zeroPoints.size() == 1 ? 0 : size_t(c)];
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t input = 0; input < parts * 2; ++input) {
        int32_t value = 0;
        if (input < inputs) {
          const std::byte raw =
              filters[size_t((c * inputs + input) * taps + tap)];
          value = (type == DataType::U8 ? int32_t(uint8_t(raw))
                                        : int32_t(int8_t(raw))) -
                  zero;
        }
        channel[size_t(tap * parts * 2 + input)] = int16_t(value);
      }
    give(sink, channel);
  }
}
