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

/// By one thread: the range is that of all elements.
void shapeDynamicQuantize(NodeBuilder &n) {
  sameSizes(n);
  shapeOf(n, 1, {});
  shapeOf(n, 2, {});
  n.setTiles(n.index(1));
}

void computeDynamicQuantize(NodeBuilder &n) {
  Scalar zero = n.constant(DataType::F32, 0), count = n.count(0);
  auto at = [&](Scalar i) { return n.load(0, i); };
  // Zero is one of the values.
  Scalar most =
      n.loop(n.index(0), count, {zero}, [&](Scalar i, State state) -> Scalars {
        return {max(state[0], at(i))};
      })[0];
  Scalar least =
      n.loop(n.index(0), count, {zero}, [&](Scalar i, State state) -> Scalars {
        return {min(state[0], at(i))};
      })[0];
  constexpr double kSteps = 255;
  Scalar scale = (most - least) / kSteps;
  // Of zeros alone any scale would do.
  Scalar divisor = select(scale > 0, scale, n.constant(DataType::F32, 1));
  Scalar zeroPoint = roundOf(min(max(-least / divisor, 0), kSteps));
  n.store(n.out(1), n.index(0), scale);
  n.store(n.out(2), n.index(0), n.convert(zeroPoint, DataType::U8));
  n.loop(n.index(0), count, [&](Scalar i) {
    n.store(n.out(), i, quantized(n, at(i) / divisor, zeroPoint, DataType::U8));
  });
}

constexpr Operator kTable[] = {
    {"DynamicQuantizeLinear", shapeDynamicQuantize, computeDynamicQuantize},
    {"QuantizeLinear", shapeQuantize, computeQuantize},
    {"DequantizeLinear", shapeQuantize, computeDequantize},
};
} // namespace

OperatorTable isthmus::quantizationOperators() { return kTable; }
