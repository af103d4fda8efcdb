//===- Quantization.cpp - to integers of few bits and back ----------------===//
#include "Quantize.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

Scalar isthmus::quantized(NodeBuilder &n, Scalar value, Scalar zeroPoint,
                          DataType type) {
  Scalar shifted = roundOf(value) + n.convert(zeroPoint, value.type);
  const int bits = int(rt::packedBits(type));
  const double low = isSigned(type) ? -double(int64_t(1) << (bits - 1)) : 0;
  const double high =
      double((int64_t(1) << (isSigned(type) ? bits - 1 : bits)) - 1);
  return n.convert(min(max(shifted, low), high), type);
}

namespace {
/// The axis; the rank if there is no such one, which the default is for
/// vectors.
size_t axisOf(NodeBuilder &n, size_t rank) {
  const int64_t axis = n.integer("axis", 1);
  return axis >= int64_t(rank) ? rank : n.axis(axis, rank);
}

/// Where the scale (and zero point) of an element stands: one for all, one for
/// each step of an axis, or one for each block along it.
Scalar parameterPlace(NodeBuilder &n, size_t input, State at) {
  if (n.rank(input) == 0)
    return n.index(0);
  const size_t axis = axisOf(n, at.size());
  if (n.rank(input) == 1 && at.size() != 1) {
    if (axis >= at.size())
      return n.index(0);
    return select(n.size(input, 0) == 1, n.index(0), at[axis]);
  }
  const int64_t block = n.integer("block_size", 0);
  if (n.rank(input) == 1 && block == 0)
    return select(n.size(input, 0) == 1, n.index(0), at[0]);
  Scalars from(at.begin(), at.end());
  if (block > 0)
    from[axis] = from[axis] / double(block);
  return n.linear(input, from);
}

void shapeQuantize(NodeBuilder &n) {
  const size_t rank = n.rank(0);
  for (size_t input : {1, 2}) {
    if (!n.has(input) || n.rank(input) == 0)
      continue;
    const size_t axis = axisOf(n, rank);
    const int64_t block = n.integer("block_size", 0);
    if (n.rank(input) == 1 && !(block > 0 && rank == 1)) {
      Scalar one = n.size(input, 0) == 1;
      n.require(axis < rank ? one | (n.size(input, 0) == n.size(0, axis)) : one,
                rt::kGraphSizes);
      continue;
    }
    for (size_t d = 0; d < rank; ++d)
      n.require(d == axis && block > 0
                    ? n.size(input, d) * double(block) >= n.size(0, d)
                    : n.size(input, d) == n.size(0, d),
                rt::kGraphSizes);
  }
  sameSizes(n);
}

void computeQuantize(NodeBuilder &n) {
  const DataType type = n.operand(n.out()).type;
  n.gather([&](State at) {
    // Parameters are those of the standard: computed in f32.
    Scalar x = n.convert(n.load(0, at), DataType::F32);
    Scalar scale =
        n.convert(n.load(1, parameterPlace(n, 1, at)), DataType::F32);
    Scalar value = x / scale;
    Scalar zero = n.has(2) ? n.load(2, parameterPlace(n, 2, at)) : Scalar();
    if (isFloat(type)) {
      if (zero)
        value = value + n.convert(zero, DataType::F32);
      return rt::bytesOf(type) == 1
                 ? n.encode(value, type, n.integer("saturate", 1))
                 : value;
    }
    return quantized(n, value,
                     zero ? n.convert(zero, DataType::I32)
                          : n.constant(DataType::I32, 0),
                     type);
  });
}

void computeDequantize(NodeBuilder &n) {
  const DataType input = NodeBuilder::computeType(n.operand(0).type);
  n.gather([&](State at) {
    Scalar scale =
        n.convert(n.load(1, parameterPlace(n, 1, at)), DataType::F32);
    Scalar x = n.load(0, at);
    const DataType type = isFloat(input) ? DataType::F32 : DataType::I32;
    Scalar value = n.convert(x, type);
    if (n.has(2))
      value = value - n.convert(n.load(2, parameterPlace(n, 2, at)), type);
    return n.convert(value, DataType::F32) * scale;
  });
}

constexpr Operator kTable[] = {
    {"QuantizeLinear", shapeQuantize, computeQuantize},
    {"DequantizeLinear", shapeQuantize, computeDequantize},
};
} // namespace

OperatorTable isthmus::quantizationOperators() { return kTable; }
