//===- Reductions.cpp - sums, extremes and the like along dimensions ------===//
#include "isthmus/Codegen/Graph/Operators.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;

namespace {
using State = ArrayRef<Scalar>;

/// Of each dimension of input 0, whether it is reduced.
Scalars reducedAxes(NodeBuilder &n) {
  const size_t rank = n.rank(0);
  const bool none = n.integer("noop_with_empty_axes", 0);
  if (!n.has(1))
    return Scalars(rank, n.truth(!none));
  Scalars result = namedAxes(n, 1, rank);
  // An empty list stands for all, or none.
  Scalar empty = n.count(1) == 0;
  for (Scalar &reduced : result)
    reduced = reduced | (empty & n.truth(!none));
  return result;
}

void shapeReduce(NodeBuilder &n) {
  Scalars reduced = reducedAxes(n), all = n.sizes(0), result;
  if (n.integer("keepdims", 1)) {
    for (size_t d = 0; d < all.size(); ++d)
      result.push_back(select(reduced[d], n.index(1), all[d]));
  } else {
    // What is left, in order; which dimensions may be known only now.
    result.assign(n.rank(n.out()), n.index(1));
    Scalar place = n.index(0);
    for (size_t d = 0; d < all.size(); ++d) {
      for (size_t j = 0; j < result.size(); ++j)
        result[j] =
            select(!reduced[d] & (place == double(j)), all[d], result[j]);
      place = place + select(reduced[d], n.index(0), n.index(1));
    }
    n.require(place == double(result.size()), rt::kGraphSizes);
  }
  shapeOf(n, 0, result);
}

/// Calls `body` for each element of the result with its linear index, its
/// coordinates in the input and how far the reduced dimensions reach.
void forEachResult(NodeBuilder &n,
                   function_ref<void(Scalar, State, State)> body) {
  Scalars reduced = reducedAxes(n), all = n.sizes(0), kept, extents;
  Scalar total = n.index(1);
  for (size_t d = 0; d < all.size(); ++d) {
    kept.push_back(select(reduced[d], n.index(1), all[d]));
    extents.push_back(select(reduced[d], all[d], n.index(1)));
    total = total * kept.back();
  }
  auto [first, last] = n.range(total);
  n.loop(first, last,
         [&](Scalar i) { body(i, n.coordinates(i, kept), extents); });
}

using Unary = Scalar (*)(Scalar);
Scalar same(Scalar x) { return x; }
Scalar square(Scalar x) { return x * x; }

/// Sums so far that do not wait for one another.
constexpr size_t kChains = 8;

/// Adds up what `term` makes of the elements that are reduced to one:
/// neighbours in the last dimension in chains of their own, which are added at
/// the end.
Scalar sumOf(NodeBuilder &n, State at, State extents, DataType type,
             function_ref<Scalar(Scalar)> term) {
  const size_t outer = at.size() ? at.size() - 1 : 0;
  auto load = [&](State offset, Scalar last) {
    Scalars place;
    for (size_t d = 0; d < outer; ++d)
      place.push_back(at[d] + offset[d]);
    if (at.size())
      place.push_back(at.back() + last);
    return term(n.convert(n.load(0, place), type));
  };
  Scalar length = at.size() ? extents.back() : n.index(1);
  Scalar whole = length / double(kChains) * double(kChains);
  Scalars sums = n.box(
      extents.take_front(outer), Scalars(kChains, n.constant(type, 0)),
      [&](State offset, State state) {
        Scalars chains = n.loop(
            n.index(0), length / double(kChains), state.vec(),
            [&](Scalar block, State own) {
              Scalars next;
              for (size_t c = 0; c < kChains; ++c)
                next.push_back(
                    own[c] + load(offset, block * double(kChains) + double(c)));
              return next;
            });
        chains[0] = n.loop(whole, length, {chains[0]},
                           [&](Scalar j, State own) -> Scalars {
                             return {own[0] + load(offset, j)};
                           })[0];
        return chains;
      });
  for (size_t half = kChains / 2; half >= 1; half /= 2)
    for (size_t c = 0; c < half; ++c)
      sums[c] = sums[c] + sums[c + half];
  return sums[0];
}

/// Loops over what is reduced to one element.
Scalars reduce(NodeBuilder &n, State at, State extents, Scalars initial,
               function_ref<Scalars(State, Scalar)> step) {
  return n.box(extents, initial, [&](State offset, State state) {
    Scalars place;
    for (size_t d = 0; d < at.size(); ++d)
      place.push_back(at[d] + offset[d]);
    return step(state, n.load(0, place));
  });
}

/// Floats are summed in f64: the order then does not show in f32.
DataType sumType(NodeBuilder &n) {
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  return isFloat(type) ? DataType::F64 : type;
}

/// finish(sum of term(x))
template <Unary term, Unary finish> void computeSum(NodeBuilder &n) {
  forEachResult(n, [&](Scalar i, State at, State extents) {
    Scalar sum = sumOf(n, at, extents, sumType(n), term);
    n.store(n.out(), i, n.convert(finish(sum), n.operand(n.out()).type));
  });
}

/// Of integers too.
Scalar rootOf(Scalar x) {
  NodeBuilder &n = *x.builder;
  return n.convert(sqrtOf(n.convert(x, DataType::F64)), x.type);
}
Scalar logarithmOf(Scalar x) {
  NodeBuilder &n = *x.builder;
  return n.convert(logOf(n.convert(x, DataType::F64)), x.type);
}

void computeMean(NodeBuilder &n) {
  forEachResult(n, [&](Scalar i, State at, State extents) {
    const DataType type = sumType(n);
    Scalar sum = sumOf(n, at, extents, type, same);
    Scalar count = n.index(1);
    for (Scalar extent : extents)
      count = count * extent;
    n.store(n.out(), i,
            n.convert(sum / n.convert(count, type), n.operand(0).type));
  });
}

void computeProduct(NodeBuilder &n) {
  forEachResult(n, [&](Scalar i, State at, State extents) {
    const DataType type = sumType(n);
    Scalar product = reduce(n, at, extents, {n.constant(type, 1)},
                            [&](State state, Scalar x) {
                              return Scalars{state[0] * n.convert(x, type)};
                            })[0];
    n.store(n.out(), i, n.convert(product, n.operand(0).type));
  });
}

template <bool greatest> void computeExtreme(NodeBuilder &n) {
  const DataType type = n.operand(0).type;
  forEachResult(n, [&](Scalar i, State at, State extents) {
    Scalar start = greatest ? n.lowest(type) : n.highest(type);
    Scalar result = reduce(n, at, extents, {start}, [&](State state, Scalar x) {
      if (type == DataType::Bool)
        return Scalars{greatest ? state[0] | x : state[0] & x};
      return Scalars{greatest ? max(state[0], x) : min(state[0], x)};
    })[0];
    n.store(n.out(), i, result);
  });
}

void computeLogSumExp(NodeBuilder &n) {
  const DataType type = DataType::F64;
  forEachResult(n, [&](Scalar i, State at, State extents) {
    Scalar most =
        reduce(n, at, extents, {n.lowest(type)}, [&](State state, Scalar x) {
          return Scalars{max(state[0], n.convert(x, type))};
        })[0];
    Scalar finite = abs(most) != n.highest(type);
    Scalar shift = select(finite, most, n.constant(type, 0));
    Scalar sum = reduce(
        n, at, extents, {n.constant(type, 0)}, [&](State state, Scalar x) {
          return Scalars{state[0] + expOf(n.convert(x, type) - shift)};
        })[0];
    n.store(n.out(), i, n.convert(logOf(sum) + shift, n.operand(0).type));
  });
}

/// Each group of elements that the axes name, made to have mean 0 and
/// variance 1.
void shapeMeanVariance(NodeBuilder &n) {
  sameSizes(n);
  n.setTiles(n.index(1));
}

void computeMeanVariance(NodeBuilder &n) {
  std::vector<int64_t> axes = n.integers("axes");
  if (axes.empty())
    axes = {0, 2, 3};
  Scalars kept = n.sizes(0), extents(n.rank(0), n.index(1));
  for (int64_t axis : axes)
    std::swap(kept[n.axis(axis, kept.size())],
              extents[n.axis(axis, kept.size())]);
  const DataType type = DataType::F64;
  n.box(kept, {}, [&](State at, State) {
    Scalar zero = n.constant(type, 0), count = n.index(1);
    for (Scalar extent : extents)
      count = count * extent;
    Scalar number = n.convert(count, type);
    auto sums = reduce(n, at, extents, {zero, zero},
                       [&](State state, Scalar x) -> Scalars {
                         x = n.convert(x, type);
                         return {state[0] + x, state[1] + x * x};
                       });
    Scalar mean = sums[0] / number;
    Scalar variance = sums[1] / number - mean * mean;
    Scalar factor = 1.0 / (sqrtOf(max(variance, 0)) + 1e-9);
    n.box(extents, {}, [&](State offset, State) {
      Scalars place;
      for (size_t d = 0; d < at.size(); ++d)
        place.push_back(at[d] + offset[d]);
      Scalar linear = n.linear(0, place);
      Scalar x = n.convert(n.load(0, linear), type);
      n.store(n.out(), linear,
              n.convert((x - mean) * factor, n.operand(0).type));
      return Scalars{};
    });
    return Scalars{};
  });
}

//===----------------------------------------------------------------------===//
// Along one dimension
//===----------------------------------------------------------------------===//

size_t axisOf(NodeBuilder &n, int64_t otherwise) {
  return n.axis(n.integer("axis", otherwise), n.rank(0));
}

void shapeArg(NodeBuilder &n) {
  Scalars result = n.sizes(0);
  const size_t axis = axisOf(n, 0);
  n.require(result[axis] > 0, rt::kGraphSizes);
  if (n.integer("keepdims", 1))
    result[axis] = n.index(1);
  else
    result.erase(result.begin() + ptrdiff_t(axis));
  shapeOf(n, 0, result);
}

template <bool greatest> void computeArg(NodeBuilder &n) {
  Lines lines(n, n.index(int64_t(axisOf(n, 0))));
  const bool lastOne = n.integer("select_last_index", 0);
  auto [first, last] = n.range(lines.count);
  n.loop(first, last, [&](Scalar i) {
    Scalar start = lines.start(i);
    auto best = n.loop(n.index(1), lines.length, {n.load(0, start), n.index(0)},
                       [&](Scalar j, State state) -> Scalars {
                         Scalar x = n.load(0, start + j * lines.inner);
                         Scalar better = greatest ? x > state[0] : x < state[0];
                         if (lastOne)
                           better = better | (x == state[0]);
                         return {select(better, x, state[0]),
                                 select(better, j, state[1])};
                       });
    n.store(n.out(), i, best[1]);
  });
}

Scalar runtimeAxis(NodeBuilder &n, size_t input) {
  Scalar axis = n.integerAt(input, 0);
  return select(axis < 0, axis + double(n.rank(0)), axis);
}

void shapeCumulate(NodeBuilder &n) {
  Scalar axis = runtimeAxis(n, 1);
  n.require((axis >= 0) & (axis < double(n.rank(0))), rt::kGraphValue);
  sameSizes(n);
  n.setTilesBy(Lines(n, axis).count);
}

template <bool product> void computeCumulate(NodeBuilder &n) {
  Lines lines(n, runtimeAxis(n, 1));
  const bool exclusive = n.integer("exclusive", 0),
             reverse = n.integer("reverse", 0);
  auto [first, last] = n.range(lines.count);
  n.loop(first, last, [&](Scalar i) {
    Scalar start = lines.start(i);
    const DataType type = sumType(n);
    n.loop(n.index(0), lines.length, {n.constant(type, product ? 1 : 0)},
           [&](Scalar j, State state) -> Scalars {
             Scalar at = reverse ? lines.length - 1 - j : j;
             at = start + at * lines.inner;
             Scalar x = n.convert(n.load(0, at), type);
             Scalar next = product ? state[0] * x : state[0] + x;
             n.store(n.out(), at,
                     n.convert(exclusive ? state[0] : next, n.operand(0).type));
             return {next};
           });
  });
}

void shapeTopK(NodeBuilder &n) {
  const size_t axis = axisOf(n, -1);
  Scalars result = n.sizes(0);
  Scalar wanted = n.integerAt(1, 0);
  n.require(wanted <= result[axis], rt::kGraphValue);
  result[axis] = wanted;
  shapeOf(n, 0, result);
  shapeOf(n, 1, result);
  n.setTilesBy(Lines(n, n.index(int64_t(axis))).count);
}

/// Each next one is the best of those that stand after the one before in the
/// order of values, then places.
void computeTopK(NodeBuilder &n) {
  const size_t axis = axisOf(n, -1);
  Lines lines(n, n.index(int64_t(axis)));
  const bool largest = n.integer("largest", 1);
  auto [first, last] = n.range(lines.count);
  Scalar wanted = n.integerAt(1, 0);
  n.loop(first, last, [&](Scalar i) {
    Scalar start = lines.start(i);
    Scalar safe = max(lines.inner, 1), outer = i / safe;
    Scalar result = outer * wanted * lines.inner + (i - outer * safe);
    const DataType type = n.operand(0).type;
    Scalar before = largest ? n.highest(type) : n.lowest(type);
    n.loop(n.index(0), wanted, {before, n.index(-1)},
           [&](Scalar j, State previous) -> Scalars {
             auto best =
                 n.loop(n.index(0), lines.length, {before, n.index(-1)},
                        [&](Scalar t, State state) -> Scalars {
                          Scalar x = n.load(0, start + t * lines.inner);
                          Scalar after =
                              (largest ? x < previous[0] : x > previous[0]) |
                              ((x == previous[0]) & (t > previous[1]));
                          Scalar better = largest ? x > state[0] : x < state[0];
                          Scalar take = after & (better | (state[1] < 0));
                          return {select(take, x, state[0]),
                                  select(take, t, state[1])};
                        });
             Scalar place = result + j * lines.inner;
             n.store(n.out(), place, best[0]);
             n.store(n.out(1), place, best[1]);
             return best;
           });
  });
}

void shapeHardmax(NodeBuilder &n) {
  sameSizes(n);
  n.setTilesBy(Lines(n, n.index(int64_t(axisOf(n, -1)))).count);
}

void computeHardmax(NodeBuilder &n) {
  Lines lines(n, n.index(int64_t(axisOf(n, -1))));
  auto [first, last] = n.range(lines.count);
  n.loop(first, last, [&](Scalar i) {
    Scalar start = lines.start(i);
    auto best = n.loop(
        n.index(0), lines.length, {n.lowest(n.operand(0).type), n.index(-1)},
        [&](Scalar j, State state) -> Scalars {
          Scalar x = n.load(0, start + j * lines.inner);
          Scalar better = (x > state[0]) | (state[1] < 0);
          return {select(better, x, state[0]), select(better, j, state[1])};
        });
    n.loop(n.index(0), lines.length, [&](Scalar j) {
      n.store(n.out(), start + j * lines.inner,
              n.convert(j == best[1], n.operand(0).type));
    });
  });
}

constexpr Operator kTable[] = {
    {"ReduceSum", shapeReduce, computeSum<same, same>, kHeavyGrain},
    {"ReduceSumSquare", shapeReduce, computeSum<square, same>, kHeavyGrain},
    {"ReduceL1", shapeReduce, computeSum<isthmus::abs, same>, kHeavyGrain},
    {"ReduceL2", shapeReduce, computeSum<square, rootOf>, kHeavyGrain},
    {"ReduceLogSum", shapeReduce, computeSum<same, logarithmOf>, kHeavyGrain},
    {"ReduceLogSumExp", shapeReduce, computeLogSumExp, kHeavyGrain},
    {"ReduceMean", shapeReduce, computeMean, kHeavyGrain},
    {"ReduceProd", shapeReduce, computeProduct, kHeavyGrain},
    {"ReduceMax", shapeReduce, computeExtreme<true>, kHeavyGrain},
    {"ReduceMin", shapeReduce, computeExtreme<false>, kHeavyGrain},
    {"MeanVarianceNormalization", shapeMeanVariance, computeMeanVariance},
    {"ArgMax", shapeArg, computeArg<true>, kHeavyGrain},
    {"ArgMin", shapeArg, computeArg<false>, kHeavyGrain},
    {"CumSum", shapeCumulate, computeCumulate<false>, kHeavyGrain},
    {"CumProd", shapeCumulate, computeCumulate<true>, kHeavyGrain},
    {"TopK", shapeTopK, computeTopK, kHeavyGrain,
     [](const NodeSpec &spec) {
       return spec.outputs.size() == 2 && spec.outputs[0].present();
     }},
    {"Hardmax", shapeHardmax, computeHardmax, kHeavyGrain},
};
} // namespace

OperatorTable isthmus::reductionOperators() { return kTable; }
