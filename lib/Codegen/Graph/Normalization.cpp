//===- Normalization.cpp - softmax, norms of layers, batches, channels ----===//
#include "isthmus/Codegen/Graph/Operators.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;

namespace {
using State = ArrayRef<Scalar>;

size_t axisOf(NodeBuilder &n) {
  return n.axis(n.integer("axis", -1), n.rank(0));
}

Lines linesOf(NodeBuilder &n) { return {n, n.index(int64_t(axisOf(n)))}; }

void shapeLines(NodeBuilder &n) {
  sameSizes(n);
  n.setTilesBy(linesOf(n).count);
}

template <bool logarithm> void computeSoftmax(NodeBuilder &n) {
  Lines line = linesOf(n);
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  auto [first, last] = n.range(line.count);
  n.loop(first, last, [&](Scalar i) {
    Scalar start = line.start(i), zero = n.index(0);
    auto at = [&](Scalar j) { return start + j * line.inner; };
    Scalar most =
        n.loop(zero, line.length, {n.lowest(type)}, [&](Scalar j, State state) {
          return Scalars{max(state[0], n.load(0, at(j)))};
        })[0];
    auto power = [&](Scalar j) { return expOf(n.load(0, at(j)) - most); };
    // Results hold the powers in between: loops of functions become vectors,
    // and sums need not wait for them. Narrow types round there and their sum,
    // as the operators do that the standard defines Softmax by (Exp, ReduceSum,
    // Div).
    if (!logarithm)
      n.loop(zero, line.length,
             [&](Scalar j) { n.store(n.out(), at(j), power(j)); });
    Scalar sum =
        n.sum(zero, line.length, n.constant(DataType::F64, 0), [&](Scalar j) {
          return n.convert(logarithm ? power(j) : n.load(n.out(), at(j)),
                           DataType::F64);
        });
    if (logarithm) {
      Scalar shift = n.convert(logOf(sum), type);
      n.loop(zero, line.length, [&](Scalar j) {
        n.store(n.out(), at(j), n.load(0, at(j)) - most - shift);
      });
      return;
    }
    Scalar factor = 1.0 / n.rounded(sum, n.operand(n.out()).type);
    n.loop(zero, line.length, [&](Scalar j) {
      n.store(n.out(), at(j), n.load(n.out(), at(j)) * factor);
    });
  });
}

void computeLpNormalization(NodeBuilder &n) {
  Lines line = linesOf(n);
  const bool square = n.integer("p", 2) == 2;
  const DataType type = DataType::F64;
  auto [first, last] = n.range(line.count);
  n.loop(first, last, [&](Scalar i) {
    Scalar start = line.start(i), zero = n.index(0);
    Scalar sum = n.sum(zero, line.length, n.constant(type, 0), [&](Scalar j) {
      Scalar x = n.convert(n.load(0, start + j * line.inner), type);
      return square ? x * x : abs(x);
    });
    Scalar norm = square ? sqrtOf(sum) : sum;
    n.loop(zero, line.length, [&](Scalar j) {
      Scalar x = n.convert(n.load(0, start + j * line.inner), type);
      Scalar y = select(norm == 0, n.constant(type, 0), x / norm);
      n.store(n.out(), start + j * line.inner, n.convert(y, n.operand(0).type));
    });
  });
}

//===----------------------------------------------------------------------===//
// Layers
//===----------------------------------------------------------------------===//

/// The dimensions that are normalised together are those from the axis on.
struct Layer {
  size_t axis;
  Scalar rows, length;
  explicit Layer(NodeBuilder &n) : axis(axisOf(n)) {
    rows = length = n.index(1);
    for (size_t d = 0; d < n.rank(0); ++d)
      (d < axis ? rows : length) = (d < axis ? rows : length) * n.size(0, d);
  }
};

/// Input `number` broadcast to input 0's sizes, at element j of row i.
Scalar affine(NodeBuilder &n, size_t number, State rowAt, const Layer &layer,
              Scalar j) {
  bool plain = n.rank(number) == n.rank(0) - layer.axis;
  for (size_t d = 0; plain && d < n.rank(number); ++d)
    plain = n.operand(number).sizes[d] >= 0 &&
            n.operand(number).sizes[d] == n.operand(0).sizes[layer.axis + d];
  if (plain)
    return n.load(number, j);
  Scalars all = n.sizes(0);
  Scalars at(rowAt.begin(), rowAt.end());
  Scalars inner = n.coordinates(j, ArrayRef(all).drop_front(layer.axis));
  at.insert(at.end(), inner.begin(), inner.end());
  Scalars from;
  for (size_t d = 0; d < n.rank(number); ++d)
    from.push_back(select(n.size(number, d) == 1, n.index(0),
                          at[d + n.rank(0) - n.rank(number)]));
  return n.load(number, from);
}

void shapeLayer(NodeBuilder &n) {
  Layer layer(n);
  Scalars all = n.sizes(0), statistics = all;
  for (size_t d = layer.axis; d < all.size(); ++d)
    statistics[d] = n.index(1);
  for (size_t i = 1; i < n.inputs(); ++i)
    if (n.has(i)) {
      Scalars joined = n.broadcastSizes({all, n.sizes(i)});
      for (size_t d = 0; d < all.size(); ++d)
        n.require(joined[d + joined.size() - all.size()] == all[d],
                  rt::kGraphSizes);
    }
  shapeOf(n, 0, all);
  for (size_t o = 1; o < n.spec.outputs.size(); ++o)
    shapeOf(n, o, statistics);
  n.setTilesBy(layer.rows);
}

template <bool centered> void computeLayerNorm(NodeBuilder &n) {
  Layer layer(n);
  const double epsilon = n.number("epsilon", 1e-5f);
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  auto [first, last] = n.range(layer.rows);
  Scalars all = n.sizes(0);
  n.loop(first, last, [&](Scalar i) {
    Scalar start = i * layer.length, zero = n.index(0);
    Scalars rowAt = n.coordinates(i, ArrayRef(all).take_front(layer.axis));
    Scalar length = n.convert(layer.length, DataType::F64);
    auto wide = [&](Scalar j) {
      return n.convert(n.load(0, start + j), DataType::F64);
    };
    Scalar none = n.constant(DataType::F64, 0), mean = none;
    if (centered)
      mean = n.sum(zero, layer.length, none, wide) / length;
    Scalar variance = n.sum(zero, layer.length, none, [&](Scalar j) {
      Scalar x = wide(j) - mean;
      return x * x;
    }) / length;
    Scalar inverse = 1.0 / sqrtOf(variance + epsilon);
    Scalar shift = n.convert(mean, type), factor = n.convert(inverse, type);
    n.loop(zero, layer.length, [&](Scalar j) {
      Scalar x = n.load(0, start + j);
      if (centered)
        x = x - shift;
      x = x * factor;
      if (n.has(1))
        x = x * affine(n, 1, rowAt, layer, j);
      if (n.has(2))
        x = x + affine(n, 2, rowAt, layer, j);
      n.store(n.out(), start + j, x);
    });
    if (n.has(n.out(1)))
      n.store(n.out(1), i,
              n.convert(centered ? mean : inverse, n.operand(n.out(1)).type));
    if (n.has(n.out(2)))
      n.store(n.out(2), i, n.convert(inverse, n.operand(n.out(2)).type));
  });
}

//===----------------------------------------------------------------------===//
// Channels
//===----------------------------------------------------------------------===//

/// The channel's numbers are vectors of its length.
void shapeChannels(NodeBuilder &n) {
  for (size_t i = 1; i < n.inputs(); ++i)
    n.require(n.count(i) == n.size(0, 1), rt::kGraphSizes);
  sameSizes(n);
}

void computeBatchNorm(NodeBuilder &n) {
  const double epsilon = n.number("epsilon", 1e-5f);
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  n.gather([&](State at) {
    auto of = [&](size_t input) {
      return n.convert(n.load(input, at[1]), type);
    };
    Scalar factor = of(1) / sqrtOf(of(4) + epsilon);
    return (n.load(0, at) - of(3)) * factor + of(2);
  });
}

void shapeInstanceNorm(NodeBuilder &n) {
  shapeChannels(n);
  n.setTilesBy(n.size(0, 0) * n.size(0, 1));
}

void computeInstanceNorm(NodeBuilder &n) {
  const double epsilon = n.number("epsilon", 1e-5f);
  Scalar channels = n.size(0, 1), length = n.index(1);
  for (size_t d = 2; d < n.rank(0); ++d)
    length = length * n.size(0, d);
  auto [first, last] = n.range(n.size(0, 0) * channels);
  n.loop(first, last, [&](Scalar i) {
    Scalar start = i * length, zero = n.index(0);
    Scalar channel = i % max(channels, 1);
    auto wide = [&](Scalar j) {
      return n.convert(n.load(0, start + j), DataType::F64);
    };
    Scalar none = n.constant(DataType::F64, 0);
    Scalar count = n.convert(length, DataType::F64);
    Scalar mean = n.sum(zero, length, none, wide) / count;
    Scalar variance = n.sum(zero, length, none, [&](Scalar j) {
      Scalar x = wide(j) - mean;
      return x * x;
    }) / count;
    Scalar factor = n.convert(n.load(1, channel), DataType::F64) /
                    sqrtOf(variance + epsilon);
    Scalar shift = n.convert(n.load(2, channel), DataType::F64);
    n.loop(zero, length, [&](Scalar j) {
      n.store(n.out(), start + j,
              n.convert((wide(j) - mean) * factor + shift, n.operand(0).type));
    });
  });
}

void computeLRN(NodeBuilder &n) {
  const int64_t size = n.integer("size", 1);
  const double alpha = n.number("alpha", 1e-4f), beta = n.number("beta", 0.75),
               bias = n.number("bias", 1);
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  n.gather([&](State at) {
    Scalar from = max(at[1] - double((size - 1) / 2), 0);
    Scalar to = min(at[1] + double(size / 2 + 1), n.size(0, 1));
    Scalar sum = n.sum(from, to, n.constant(type, 0), [&](Scalar channel) {
      Scalars place(at.begin(), at.end());
      place[1] = channel;
      Scalar x = n.load(0, place);
      return x * x;
    });
    Scalar base = sum * (alpha / double(size)) + bias;
    return n.load(0, at) / powerOf(base, n.constant(type, beta));
  });
}

constexpr Operator kTable[] = {
    {"Softmax", shapeLines, computeSoftmax<false>, kHeavyGrain},
    {"LogSoftmax", shapeLines, computeSoftmax<true>, kHeavyGrain},
    {"LpNormalization", shapeLines, computeLpNormalization, kHeavyGrain},
    {"LayerNormalization", shapeLayer, computeLayerNorm<true>, kHeavyGrain},
    {"RMSNormalization", shapeLayer, computeLayerNorm<false>, kHeavyGrain},
    {"BatchNormalization", shapeChannels, computeBatchNorm, kLightGrain,
     [](const NodeSpec &spec) {
       auto training = spec.attributes.getAs<IntegerAttr>("training_mode");
       return !(training && training.getInt()) && spec.outputs.size() == 1;
     }},
    {"InstanceNormalization", shapeInstanceNorm, computeInstanceNorm,
     kHeavyGrain},
    {"LRN", shapeBroadcast, computeLRN},
};
} // namespace

OperatorTable isthmus::normalizationOperators() { return kTable; }
