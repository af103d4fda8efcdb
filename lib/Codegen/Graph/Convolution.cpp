//===- Convolution.cpp - convolutions of all kinds ------------------------===//
#include "Convolutions.h"
#include "Quantize.h"
#include "Window.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

namespace {
/// Where the inputs of a convolution stand.
struct Inputs {
  size_t weight, bias, xZero, wZero;
};

void shapeConvolution(NodeBuilder &n, const Inputs &in) {
  Window window(n, kernelSizes(n, in.weight));
  const auto group = double(n.integer("group", 1));
  n.require(n.size(in.weight, 1) * group == n.size(0, 1), rt::kGraphSizes);
  n.require(n.size(in.weight, 0) % group == 0, rt::kGraphSizes);
  if (n.has(in.bias))
    n.require(n.count(in.bias) == n.size(in.weight, 0), rt::kGraphSizes);
  Scalars result = {n.size(0, 0), n.size(in.weight, 0)};
  result.insert(result.end(), window.output.begin(), window.output.end());
  shapeOf(n, 0, result);
}

/// The sum of products at one place of the result, in `type`.
Scalar convolve(NodeBuilder &n, const Inputs &in, const Window &window,
                State at, DataType type) {
  const auto group = double(n.integer("group", 1));
  Scalar perGroup = n.size(in.weight, 1);
  Scalar outputsOfGroup = n.size(in.weight, 0) / group;
  Scalar firstChannel = at[1] / max(outputsOfGroup, 1) * perGroup;
  auto parameter = [&](size_t input, Scalar channel) {
    if (!n.has(input))
      return n.constant(type, 0);
    Scalar single = n.count(input) == 1;
    return n.convert(n.load(input, select(single, n.index(0), channel)), type);
  };
  Scalar xZero = parameter(in.xZero, n.index(0)),
         wZero = parameter(in.wZero, at[1]);
  return window.forEach(
      n, at.drop_front(2), {n.constant(type, 0)},
      [&](State position, State offset, State state) -> Scalars {
        Scalars xAt = {at[0], firstChannel}, wAt = {at[1], n.index(0)};
        xAt.insert(xAt.end(), position.begin(), position.end());
        wAt.insert(wAt.end(), offset.begin(), offset.end());
        Scalar x = n.linear(0, xAt), w = n.linear(in.weight, wAt);
        return {n.sum(n.index(0), perGroup, state[0], [&](Scalar channel) {
          Scalar a = n.convert(n.load(0, x + channel * n.stride(0, 1)), type);
          Scalar b = n.convert(
              n.load(in.weight, w + channel * n.stride(in.weight, 1)), type);
          if (n.has(in.xZero))
            a = a - xZero;
          if (n.has(in.wZero))
            b = b - wZero;
          return a * b;
        })};
      })[0];
}

constexpr size_t kNone = 100; ///< an input that no node has
constexpr Inputs kConv = {1, 2, kNone, kNone}, kConvInteger = {1, kNone, 2, 3},
                 kQLinear = {3, 8, 2, 5};

//===----------------------------------------------------------------------===//
// Conv
//===----------------------------------------------------------------------===//

bool isBlocked(NodeBuilder &n) {
  return n.operand(0).type == DataType::F32 &&
         n.operand(1).type == DataType::F32;
}

void shapeConv(NodeBuilder &n) {
  shapeConvolution(n, kConv);
  if (isBlocked(n))
    isDepthwise(n) ? shapeDepthwiseConv(n) : shapeBlockedConv(n);
}

void computeConv(NodeBuilder &n) {
  if (isBlocked(n))
    return isDepthwise(n) ? computeDepthwiseConv(n) : computeBlockedConv(n);
  Window window(n, kernelSizes(n, 1));
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  n.gather([&](State at) {
    Scalar sum = convolve(n, kConv, window, at, type);
    return n.has(2) ? sum + n.load(2, at[1]) : sum;
  });
}

void shapeConvInteger(NodeBuilder &n) { shapeConvolution(n, kConvInteger); }

void computeConvInteger(NodeBuilder &n) {
  Window window(n, kernelSizes(n, 1));
  n.gather([&](State at) {
    return convolve(n, kConvInteger, window, at, DataType::I32);
  });
}

void shapeQLinearConv(NodeBuilder &n) { shapeConvolution(n, kQLinear); }

void computeQLinearConv(NodeBuilder &n) {
  Window window(n, kernelSizes(n, 3));
  n.gather([&](State at) {
    Scalar sum = convolve(n, kQLinear, window, at, DataType::I32);
    if (n.has(8))
      sum = sum + n.load(8, at[1]);
    Scalar wScale = n.load(4, select(n.count(4) == 1, n.index(0), at[1]));
    Scalar scale = n.scalarInput(1) * wScale / n.scalarInput(6);
    return quantized(n, n.convert(sum, DataType::F32) * scale,
                     n.convert(n.scalarInput(7), DataType::I32),
                     n.operand(n.out()).type);
  });
}

//===----------------------------------------------------------------------===//
// DeformConv: sampling places are moved by an input
//===----------------------------------------------------------------------===//

void shapeDeformConv(NodeBuilder &n) {
  shapeConvolution(n, {1, 3, kNone, kNone});
  Window window(n, kernelSizes(n, 1));
  const auto groups = double(n.integer("offset_group", 1));
  Scalar taps = n.index(1);
  for (Scalar size : window.kernel)
    taps = taps * size;
  n.require(n.size(2, 1) == taps * 2 * groups, rt::kGraphSizes);
  n.require(n.size(0, 1) % groups == 0, rt::kGraphSizes);
  for (size_t d = 0; d < 2; ++d)
    n.require(n.size(2, d + 2) == window.output[d], rt::kGraphSizes);
  if (n.has(4)) {
    n.require(n.size(4, 1) == taps * groups, rt::kGraphSizes);
    for (size_t d = 0; d < 2; ++d)
      n.require(n.size(4, d + 2) == window.output[d], rt::kGraphSizes);
  }
}

/// Between four elements of a picture of which `base` is the first; 0 outside.
Scalar bilinear(NodeBuilder &n, Scalar base, Scalar y, Scalar x) {
  Scalar height = n.size(0, 2), width = n.size(0, 3);
  Scalar y0 = floorOf(y), x0 = floorOf(x);
  Scalar sum = n.constant(y.type, 0);
  for (int dy : {0, 1})
    for (int dx : {0, 1}) {
      Scalar weight =
          (dy ? y - y0 : 1.0 - (y - y0)) * (dx ? x - x0 : 1.0 - (x - x0));
      Scalar row = n.convert(y0, DataType::I64) + double(dy),
             column = n.convert(x0, DataType::I64) + double(dx);
      Scalar inside =
          (row >= 0) & (row < height) & (column >= 0) & (column < width);
      Scalar at = base + select(inside, row * width + column, n.index(0));
      sum = sum + select(inside, n.convert(n.load(0, at), y.type) * weight,
                         n.constant(y.type, 0));
    }
  return sum;
}

void computeDeformConv(NodeBuilder &n) {
  Window window(n, kernelSizes(n, 1));
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  const auto group = double(n.integer("group", 1)),
             offsetGroups = double(n.integer("offset_group", 1));
  Scalar perGroup = n.size(1, 1), outputs = max(n.size(1, 0) / group, 1);
  Scalar perOffset = max(n.size(0, 1) / offsetGroups, 1);
  Scalar taps = window.kernel[0] * window.kernel[1];
  n.gather([&](State at) {
    Scalar first = at[1] / outputs * perGroup;
    Scalars extents = {perGroup, window.kernel[0], window.kernel[1]};
    Scalar sum =
        n.box(extents, {n.constant(type, 0)}, [&](State t, State state) {
          Scalar channel = first + t[0];
          Scalar tap = t[1] * window.kernel[1] + t[2];
          Scalar own = channel / perOffset * taps + tap;
          auto shift = [&](int which) {
            return n.load(
                2, Scalars{at[0], own * 2 + double(which), at[2], at[3]});
          };
          Scalar y =
              n.convert(window.position(0, at[2], t[1]), type) + shift(0);
          Scalar x =
              n.convert(window.position(1, at[3], t[2]), type) + shift(1);
          Scalar base = n.linear(0, Scalars{at[0], channel});
          Scalar value = bilinear(n, base, y, x) *
                         n.load(1, Scalars{at[1], t[0], t[1], t[2]});
          if (n.has(4))
            value = value * n.load(4, Scalars{at[0], own, at[2], at[3]});
          return Scalars{state[0] + value};
        })[0];
    return n.has(3) ? sum + n.load(3, at[1]) : sum;
  });
}

//===----------------------------------------------------------------------===//
// Col2Im: in one tile, since blocks overlap
//===----------------------------------------------------------------------===//

struct Blocks {
  size_t spatial;
  Scalars image, block, counts, stride, dilation, before;
  explicit Blocks(NodeBuilder &n) : spatial(n.rank(n.out()) - 2) {
    Scalars pads = perSpatial(n, "pads", 2 * spatial, 0);
    stride = perSpatial(n, "strides", spatial, 1);
    dilation = perSpatial(n, "dilations", spatial, 1);
    for (size_t d = 0; d < spatial; ++d) {
      image.push_back(n.integerAt(1, d));
      block.push_back(n.integerAt(2, d));
      before.push_back(pads[d]);
      Scalar reach = (block[d] - 1) * dilation[d] + 1;
      counts.push_back(
          (image[d] + pads[d] + pads[d + spatial] - reach) / stride[d] + 1);
    }
  }
};

Scalar product(NodeBuilder &n, State factors) {
  Scalar result = n.index(1);
  for (Scalar factor : factors)
    result = result * factor;
  return result;
}

void shapeCol2Im(NodeBuilder &n) {
  Blocks b(n);
  n.require((n.count(1) == double(b.spatial)) &
                (n.count(2) == double(b.spatial)),
            rt::kGraphSizes);
  Scalar taps = max(product(n, b.block), 1);
  n.require((n.size(0, 1) % taps == 0) & (n.size(0, 2) == product(n, b.counts)),
            rt::kGraphSizes);
  Scalars result = {n.size(0, 0), n.size(0, 1) / taps};
  result.insert(result.end(), b.image.begin(), b.image.end());
  shapeOf(n, 0, result);
  n.setTiles(n.index(1));
}

void computeCol2Im(NodeBuilder &n) {
  Blocks b(n);
  n.loop(n.index(0), n.count(n.out()), [&](Scalar i) {
    n.store(n.out(), i, n.constant(n.operand(0).type, 0));
  });
  Scalars extents = {n.size(0, 0), n.size(n.out(), 1)};
  extents.insert(extents.end(), b.block.begin(), b.block.end());
  extents.insert(extents.end(), b.counts.begin(), b.counts.end());
  n.box(extents, {}, [&](State at, State) {
    Scalar tap = at[1], column = n.index(0), inside = n.truth(true);
    Scalars to = {at[0], at[1]};
    for (size_t d = 0; d < b.spatial; ++d) {
      Scalar offset = at[2 + d], place = at[2 + b.spatial + d];
      tap = tap * b.block[d] + offset;
      column = column * b.counts[d] + place;
      to.push_back(place * b.stride[d] - b.before[d] + offset * b.dilation[d]);
      inside = inside & (to.back() >= 0) & (to.back() < b.image[d]);
    }
    n.when(inside, [&] {
      Scalar place = n.linear(n.out(), to);
      n.store(n.out(), place,
              n.load(n.out(), place) + n.load(0, Scalars{at[0], tap, column}));
    });
    return Scalars{};
  });
}

//===----------------------------------------------------------------------===//
// CausalConvWithState: input, weight, bias, past_state; a channel by itself
//===----------------------------------------------------------------------===//

void shapeCausalConv(NodeBuilder &n) {
  Scalar channels = n.size(0, 1), past = n.size(1, 2) - 1;
  n.require((n.size(1, 0) == channels) & (n.size(1, 1) == 1), rt::kGraphSizes);
  if (n.has(2))
    n.require(n.count(2) == channels, rt::kGraphSizes);
  if (n.has(3))
    n.require((n.size(3, 0) == n.size(0, 0)) & (n.size(3, 1) == channels) &
                  (n.size(3, 2) == past),
              rt::kGraphSizes);
  sameSizes(n);
  shapeOf(n, 1, {n.size(0, 0), channels, past});
  n.setTilesBy(n.size(0, 0) * channels);
}

void computeCausalConv(NodeBuilder &n) {
  Scalar channels = n.size(0, 1), length = n.size(0, 2), taps = n.size(1, 2);
  Scalar past = taps - 1;
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  const std::string activation = n.text("activation", "none");
  auto [first, last] = n.range(n.size(0, 0) * channels);
  n.loop(first, last, [&](Scalar i) {
    Scalar channel = i % max(channels, 1);
    // Element t of what was before and the input, one after the other.
    auto at = [&](Scalar t) {
      return n.either(
          t < past,
          [&] {
            return Scalars{n.has(3) ? n.load(3, i * past + t)
                                    : n.constant(type, 0)};
          },
          [&] { return Scalars{n.load(0, i * length + t - past)}; })[0];
    };
    n.loop(n.index(0), length, [&](Scalar t) {
      Scalar start = n.has(2) ? n.load(2, channel) : n.constant(type, 0);
      Scalar sum = n.sum(n.index(0), taps, start, [&](Scalar tap) {
        return at(t + tap) * n.load(1, channel * taps + tap);
      });
      if (activation != "none")
        sum = sum * sigmoidOf(sum);
      n.store(n.out(), i * length + t, sum);
    });
    if (n.has(n.out(1)))
      n.loop(n.index(0), past, [&](Scalar t) {
        n.store(n.out(1), i * past + t, at(length + t));
      });
  });
}

bool isPicture(const NodeSpec &spec) { return spec.inputs[0].rank() == 4; }
bool hasSpace(const NodeSpec &spec) {
  const size_t weight = spec.op == "QLinearConv" ? 3 : 1;
  return spec.inputs[0].rank() >= 3 && spec.inputs.size() > weight &&
         spec.inputs[weight].rank() == spec.inputs[0].rank();
}

constexpr Operator kTable[] = {
    {"Conv", shapeConv, computeConv, kHeavyGrain, hasSpace},
    {"ConvInteger", shapeConvInteger, computeConvInteger, kHeavyGrain,
     hasSpace},
    {"QLinearConv", shapeQLinearConv, computeQLinearConv, kHeavyGrain,
     hasSpace},
    {"DeformConv", shapeDeformConv, computeDeformConv, kHeavyGrain, isPicture},
    {"Col2Im", shapeCol2Im, computeCol2Im},
    {"CausalConvWithState", shapeCausalConv, computeCausalConv, 1},
};
} // namespace

Scalars isthmus::kernelSizes(NodeBuilder &n, size_t weight) {
  Scalars result;
  for (size_t d = 2; d < n.rank(weight); ++d)
    result.push_back(n.size(weight, d));
  return result;
}

OperatorTable isthmus::convolutionOperators() { return kTable; }
