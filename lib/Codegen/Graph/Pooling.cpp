//===- Pooling.cpp - pools, and windows in general ------------------------===//
#include "Window.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

Scalars isthmus::perSpatial(NodeBuilder &n, StringRef name, size_t count,
                            int64_t otherwise) {
  std::vector<int64_t> given = n.integers(name);
  Scalars result;
  for (size_t d = 0; d < count; ++d)
    result.push_back(n.index(d < given.size() ? given[d] : otherwise));
  return result;
}

Window::Window(NodeBuilder &n, Scalars kernelSizes)
    : dimensions(n.rank(0) - 2), kernel(std::move(kernelSizes)),
      stride(perSpatial(n, "strides", dimensions, 1)),
      dilation(perSpatial(n, "dilations", dimensions, 1)) {
  const std::string autoPad = n.text("auto_pad", "NOTSET");
  Scalars pads = perSpatial(n, "pads", 2 * dimensions, 0);
  const bool ceil = n.integer("ceil_mode", 0);
  for (size_t d = 0; d < dimensions; ++d) {
    Scalar size = n.size(0, d + 2);
    input.push_back(size);
    Scalar reach = (kernel[d] - 1) * dilation[d] + 1;
    if (autoPad.starts_with("SAME")) {
      Scalar count = (size + stride[d] - 1) / stride[d];
      Scalar total = max((count - 1) * stride[d] + reach - size, 0);
      Scalar half = total / 2;
      before.push_back(autoPad == "SAME_UPPER" ? half : total - half);
      output.push_back(count);
      continue;
    }
    Scalar first = n.index(0), last = n.index(0);
    if (autoPad != "VALID") {
      first = pads[d];
      last = pads[d + dimensions];
    }
    before.push_back(first);
    Scalar span = size + first + last - reach;
    Scalar count =
        (ceil ? (span + stride[d] - 1) / stride[d] : span / stride[d]) + 1;
    // Negative spans do not round toward zero.
    count = select(span < 0, n.index(0), count);
    if (ceil) // a window must not start in the padding behind
      count = select((count - 1) * stride[d] >= size + first, count - 1, count);
    output.push_back(count);
  }
}

Scalars Window::forEach(NodeBuilder &n, State at, Scalars initial,
                        function_ref<Scalars(State, State, State)> body) const {
  return n.box(kernel, initial, [&](State offset, State state) {
    Scalars where;
    Scalar inside = n.truth(true);
    for (size_t d = 0; d < dimensions; ++d) {
      where.push_back(position(d, at[d], offset[d]));
      inside = inside & (where[d] >= 0) & (where[d] < input[d]);
    }
    return n.either(
        inside, [&] { return body(where, offset, state); },
        [&] { return state.vec(); });
  });
}

namespace {
Scalars outputSizes(NodeBuilder &n, const Window &window, Scalar channels) {
  Scalars result = {n.size(0, 0), channels};
  result.insert(result.end(), window.output.begin(), window.output.end());
  return result;
}

Window poolWindow(NodeBuilder &n) {
  return {n, perSpatial(n, "kernel_shape", n.rank(0) - 2, 1)};
}

void shapePool(NodeBuilder &n) {
  Window window = poolWindow(n);
  Scalars result = outputSizes(n, window, n.size(0, 1));
  shapeOf(n, 0, result);
  shapeOf(n, 1, result);
}

/// The picture's place, then the window's.
Scalars place(State at, State position) {
  Scalars result(at.begin(), at.begin() + 2);
  result.insert(result.end(), position.begin(), position.end());
  return result;
}

void computeMaxPool(NodeBuilder &n) {
  Window window = poolWindow(n);
  const DataType type = n.operand(0).type;
  const bool columnMajor = n.integer("storage_order", 0);
  n.forEach(n.out(), [&](State at, Scalar i) {
    auto best = window.forEach(
        n, at.drop_front(2), {n.lowest(type), n.index(-1)},
        [&](State position, State, State state) -> Scalars {
          Scalars where = place(at, position);
          Scalar linear = n.linear(0, where), x = n.load(0, linear);
          Scalar better = (x > state[0]) | (state[1] < 0);
          Scalar number = linear;
          if (columnMajor) {
            number = (where[0] * n.size(0, 1) + where[1]) * n.stride(0, 1);
            Scalar step = n.index(1);
            for (size_t d = 0; d < position.size(); ++d) {
              number = number + position[d] * step;
              step = step * window.input[d];
            }
          }
          return {select(better, x, state[0]),
                  select(better, number, state[1])};
        });
    n.store(n.out(), i, best[0]);
    if (n.has(n.out(1)))
      n.store(n.out(1), i, best[1]);
  });
}

void computeAveragePool(NodeBuilder &n) {
  Window window = poolWindow(n);
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  const bool padded = n.integer("count_include_pad", 0);
  Scalars pads = perSpatial(n, "pads", 2 * window.dimensions, 0);
  n.gather([&](State at) {
    auto result = window.forEach(
        n, at.drop_front(2), {n.constant(type, 0), n.index(0)},
        [&](State position, State, State state) -> Scalars {
          return {state[0] + n.load(0, place(at, position)), state[1] + 1};
        });
    Scalar count = result[1];
    if (padded) {
      // Padding counts, but not what ceil_mode adds behind it.
      count = n.index(1);
      for (size_t d = 0; d < window.dimensions; ++d) {
        Scalar end = window.input[d] + pads[d + window.dimensions];
        Scalar own =
            n.sum(n.index(0), window.kernel[d], n.index(0), [&](Scalar offset) {
              Scalar where = window.position(d, at[d + 2], offset);
              return select(where < end, n.index(1), n.index(0));
            });
        count = count * own;
      }
    }
    return result[0] / n.convert(max(count, 1), type);
  });
}

void computeLpPool(NodeBuilder &n) {
  Window window = poolWindow(n);
  const auto p = double(n.integer("p", 2));
  const DataType type = DataType::F64;
  n.gather([&](State at) {
    Scalar exponent = n.constant(type, p);
    Scalar sum = window.forEach(
        n, at.drop_front(2), {n.constant(type, 0)},
        [&](State position, State, State state) -> Scalars {
          Scalar x = abs(n.convert(n.load(0, place(at, position)), type));
          return {state[0] + (p == 1   ? x
                              : p == 2 ? x * x
                                       : powerOf(x, exponent))};
        })[0];
    Scalar root = p == 1   ? sum
                  : p == 2 ? sqrtOf(sum)
                           : powerOf(sum, n.constant(type, 1 / p));
    return n.convert(root, n.operand(0).type);
  });
}

void shapeGlobal(NodeBuilder &n) {
  Scalars result = {n.size(0, 0), n.size(0, 1)};
  result.resize(n.rank(0), n.index(1));
  shapeOf(n, 0, result);
}

template <bool maximum> void computeGlobal(NodeBuilder &n) {
  Scalar length = n.index(1);
  for (size_t d = 2; d < n.rank(0); ++d)
    length = length * n.size(0, d);
  const DataType type =
      maximum ? NodeBuilder::computeType(n.operand(0).type) : DataType::F64;
  n.forEach(n.out(), [&](State, Scalar i) {
    Scalar result = n.loop(
        n.index(0), length, {maximum ? n.lowest(type) : n.constant(type, 0)},
        [&](Scalar j, State state) {
          Scalar x = n.convert(n.load(0, i * length + j), type);
          return Scalars{maximum ? max(state[0], x) : state[0] + x};
        })[0];
    if (!maximum)
      result = result / n.convert(length, type);
    n.store(n.out(), i, n.convert(result, n.operand(0).type));
  });
}

//===----------------------------------------------------------------------===//
// MaxUnpool: in one tile, since places may come twice
//===----------------------------------------------------------------------===//

void shapeMaxUnpool(NodeBuilder &n) {
  const size_t spatial = n.rank(0) - 2;
  Scalars kernel = perSpatial(n, "kernel_shape", spatial, 1),
          stride = perSpatial(n, "strides", spatial, 1),
          pads = perSpatial(n, "pads", 2 * spatial, 0);
  Scalars result = {n.size(0, 0), n.size(0, 1)};
  for (size_t d = 0; d < spatial; ++d)
    result.push_back(n.has(2) ? n.integerAt(2, d + 2)
                              : (n.size(0, d + 2) - 1) * stride[d] + kernel[d] -
                                    pads[d] - pads[d + spatial]);
  n.require(n.count(0) == n.count(1), rt::kGraphSizes);
  shapeOf(n, 0, result);
  n.setTiles(n.index(1));
}

void computeMaxUnpool(NodeBuilder &n) {
  Scalar total = n.count(n.out());
  n.loop(n.index(0), total, [&](Scalar i) {
    n.store(n.out(), i, n.constant(n.operand(0).type, 0));
  });
  // Places count in the picture that the default sizes give.
  const size_t spatial = n.rank(0) - 2;
  Scalars kernel = perSpatial(n, "kernel_shape", spatial, 1),
          stride = perSpatial(n, "strides", spatial, 1),
          pads = perSpatial(n, "pads", 2 * spatial, 0);
  Scalars plain = {n.size(0, 0), n.size(0, 1)};
  for (size_t d = 0; d < spatial; ++d)
    plain.push_back((n.size(0, d + 2) - 1) * stride[d] + kernel[d] - pads[d] -
                    pads[d + spatial]);
  n.loop(n.index(0), n.count(0), [&](Scalar i) {
    Scalar to = n.linear(n.out(), n.coordinates(n.load(1, i), plain));
    Scalar inside = (to >= 0) & (to < total);
    n.require(inside, rt::kGraphIndex);
    n.when(inside, [&] { n.store(n.out(), to, n.load(0, i)); });
  });
}

constexpr Operator kTable[] = {
    {"MaxPool", shapePool, computeMaxPool, kHeavyGrain},
    {"AveragePool", shapePool, computeAveragePool, kHeavyGrain},
    {"LpPool", shapePool, computeLpPool, kHeavyGrain},
    {"GlobalMaxPool", shapeGlobal, computeGlobal<true>, kHeavyGrain},
    {"GlobalAveragePool", shapeGlobal, computeGlobal<false>, kHeavyGrain},
    {"MaxUnpool", shapeMaxUnpool, computeMaxUnpool},
};
} // namespace

OperatorTable isthmus::poolingOperators() { return kTable; }
