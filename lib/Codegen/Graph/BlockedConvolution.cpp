//===- BlockedConvolution.cpp - convolutions as products of matrices ------===//
//
// The windows of a run of places are written side by side, an element of all of
// them in a row, and the weights are multiplied with that (Chellapilla, Puri,
// Simard, 2006). In f32, and of bytes as pairs of int16, from which zero points
// are taken off first: sums are those of ConvInteger.
//
//===----------------------------------------------------------------------===//
#include "../Kernels/DotProducts.h"
#include "Convolutions.h"
#include "Matrix.h"
#include "Window.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

namespace {
/// Places of a tile, and channels of the result at least.
constexpr int64_t kPlaces = kMatrixColumns, kChannels = kMatrixRows;
/// Tiles that are enough for threads to share. More of them write the same
/// windows out again.
constexpr int64_t kTiles = 8;

/// What differs between f32 and pairs.
struct Form {
  Scalars kernel;
  Scalar inputs, outputs, group; ///< channels of a group
  /// Pairs of channels of an element of the window (ints), or its channels.
  Scalar parts;
  bool pairs;
  /// Of 16 sums, what is stored.
  std::function<Value(Value sums, Scalar channel)> finish;
};

class BlockedConv {
public:
  BlockedConv(NodeBuilder &n, Form given)
      : n(n), form(std::move(given)), window(n, form.kernel) {
    dropSingles();
    inner = form.parts;
    places = n.index(1);
    for (size_t d = 0; d < window.dimensions; ++d) {
      inner = inner * window.kernel[d];
      places = places * window.output[d];
    }
    blocks = (places + double(kPlaces - 1)) / double(kPlaces);
    Scalar runs = max(n.size(0, 0) * form.group * blocks, 1);
    Scalar wanted = (runs + double(kTiles - 1)) / runs;
    Scalar parts =
        (form.outputs / wanted + double(kChannels - 1)) / double(kChannels);
    channels = max(parts, 1) * double(kChannels);
    bands = (form.outputs + channels - 1) / channels;
  }

  void shape() {
    n.setTiles(n.size(0, 0) * form.group * blocks * bands);
    if (!isPointwise())
      n.setScratch(inner * double(kPlaces * 4) + 64);
  }

  void compute() {
    n.loop({&n, n.k.begin, DataType::I64}, {&n, n.k.end, DataType::I64},
           {n.index(-1)}, [&](Scalar tile, State state) -> Scalars {
             Scalar run = tile / max(bands, 1), band = tile - run * bands;
             Scalar picture = run / max(blocks, 1);
             first = (run - picture * blocks) * double(kPlaces);
             count = min(places - first, double(kPlaces));
             Scalar batch = picture / form.group,
                    own = picture - batch * form.group;
             channel = batch * n.size(0, 1) + own * form.inputs;
             // The next band of channels finds the windows there.
             if (!isPointwise())
               n.when(state[0] != run, [&] { gatherWindows(); });
             multiply(batch, own, band * channels);
             return {run};
           });
  }

private:
  NodeBuilder &n;
  const Form form;
  Window window;
  Scalar inner, places, blocks;
  Scalar channels, bands; ///< of a tile; tiles of a run of places
  Scalar first, count;    ///< places of the tile
  Scalar channel;         ///< the first that it reads, of all pictures

  /// Takes away dimensions in which everything is 1: lines are copied as a
  /// whole, and the last dimension is what makes a line.
  void dropSingles() {
    auto isOne = [](Scalar size) { return NodeBuilder::known(size) == 1; };
    for (size_t d = window.dimensions; d-- > 0 && window.dimensions > 1;) {
      if (!isOne(window.input[d]) || !isOne(window.kernel[d]) ||
          !isOne(window.output[d]))
        continue;
      for (Scalars *sizes : {&window.input, &window.kernel, &window.stride,
                             &window.dilation, &window.before, &window.output})
        sizes->erase(sizes->begin() + ptrdiff_t(d));
      --window.dimensions;
    }
  }

  /// True if windows are single elements: the input is then what is multiplied.
  bool isPointwise() const {
    if (form.pairs)
      return false;
    for (size_t d = 0; d < window.dimensions; ++d)
      if (NodeBuilder::known(window.kernel[d]) != 1 ||
          NodeBuilder::known(window.stride[d]) != 1 ||
          NodeBuilder::known(window.before[d]) != 0)
        return false;
    return NodeBuilder::known(
               n.integers("pads").empty()
                   ? n.index(0)
                   : n.index(*llvm::max_element(n.integers("pads")))) == 0;
  }

  void multiply(Scalar batch, Scalar own, Scalar band) {
    Scalar row = own * form.outputs + band;
    Matrix matrix;
    matrix.pairs = form.pairs;
    matrix.rows = min(form.outputs - band, channels);
    matrix.columns = count;
    matrix.inner = inner;
    matrix.aRow = inner * 4.0;
    matrix.aInner = n.index(4);
    matrix.cRow = places * 4.0;
    matrix.a = n.address(1, row * inner);
    matrix.c = n.address(
        n.out(), (batch * form.group * form.outputs + row) * places + first);
    if (isPointwise()) {
      matrix.b = n.address(0, channel * places + first);
      matrix.bInner = places * 4.0;
    } else {
      matrix.b = n.k.scratch;
      matrix.bInner = n.index(kPlaces * 4);
    }
    if (form.finish)
      matrix.finish = [&](Value sums, Scalar r, Scalar) {
        return form.finish(sums, row + r);
      };
    emitMatrix(n, matrix);
  }

  /// Writes element t of the windows of places [first, first + count) to row t
  /// of the scratch memory. The weights have it so: f32 has all elements of a
  /// channel one after another, pairs all channels of an element.
  void gatherWindows() {
    const size_t last = window.dimensions - 1;
    Scalars extents = {form.parts};
    extents.insert(extents.end(), window.kernel.begin(), window.kernel.end());
    Scalar width = max(window.output[last], 1);
    ArrayRef<Scalar> outer = ArrayRef(window.output).drop_back();
    Scalar size = n.index(1);
    for (Scalar along : window.input)
      size = size * along;
    n.box(extents, {}, [&](State tap, State) {
      Scalar row = form.pairs ? n.index(0) : tap[0];
      for (size_t d = 0; d < window.dimensions; ++d)
        row = row * window.kernel[d] + tap[d + 1];
      if (form.pairs)
        row = row * form.parts + tap[0];
      row = row * double(kPlaces);
      Scalar own = form.pairs ? tap[0] * 2.0 : tap[0];
      // Of an odd number of channels the last has no neighbour; its weight is
      // 0.
      Scalar next = select(own + 1 < form.inputs, size, n.index(0));
      Scalar end = first + count;
      n.loop(first / width, (end + width - 1) / width, [&](Scalar line) {
        Scalars at = n.coordinates(line, outer);
        Scalar inside = n.truth(true), from = channel + own;
        for (size_t d = 0; d < last; ++d) {
          Scalar place = window.position(d, at[d], tap[d + 1]);
          inside = inside & (place >= 0) & (place < window.input[d]);
          from = from * window.input[d] + place;
        }
        from = from * window.input[last];
        Scalar start = line * width;
        copyLine(tap[last + 1], inside, from, next, row + start - first,
                 max(first - start, 0), min(end - start, width));
      });
      return Scalars{};
    });
  }

  /// Elements [begin, end) of a line: those in the picture, and zeros around
  /// them.
  void copyLine(Scalar tap, Scalar inside, Scalar from, Scalar next, Scalar to,
                Scalar begin, Scalar end) {
    const size_t last = window.dimensions - 1;
    Scalar stride = window.stride[last];
    Scalar shift = tap * window.dilation[last] - window.before[last];
    Scalar low = (max(-shift, 0) + stride - 1) / stride;
    Scalar reach = window.input[last] - 1 - shift;
    Scalar high = select(reach >= 0, reach / stride + 1, n.index(0));
    low = min(max(low, begin), end);
    high = select(inside, max(min(high, end), low), low);
    auto put = [&](Scalar x, Scalar value) {
      n.storeScratch((to + x) * 4.0, value);
    };
    Scalar zero = n.constant(form.pairs ? DataType::I32 : DataType::F32, 0);
    n.loop(begin, low, [&](Scalar x) { put(x, zero); });
    if (form.pairs)
      n.loop(low, high, [&](Scalar x) {
        Scalar at = from + shift + x * stride;
        put(x, pairAt(at, at + next));
      });
    else
      copyToScratch(n, from + shift, stride, to, low, high);
    n.loop(high, end, [&](Scalar x) { put(x, zero); });
  }

  /// Two elements without the zero point.
  Scalar pairAt(Scalar at, Scalar next) {
    Scalar zero = n.has(2) ? n.convert(n.load(2, n.index(0)), DataType::I32)
                           : n.constant(DataType::I32, 0);
    auto element = [&](Scalar place) {
      return n.convert(n.load(0, place), DataType::I32) - zero;
    };
    return wordOf(n, element(at), element(next));
  }
};

//===----------------------------------------------------------------------===//
// Conv in f32: x, weights, bias
//===----------------------------------------------------------------------===//

BlockedConv floatConv(NodeBuilder &n) {
  const auto group = n.integer("group", 1);
  Form form;
  form.kernel = kernelSizes(n, 1);
  form.inputs = form.parts = n.size(1, 1);
  form.outputs = n.size(1, 0) / double(group);
  form.group = n.index(group);
  form.pairs = false;
  if (n.has(2))
    form.finish = [&n](Value sums, Scalar channel) {
      return n.k.fadd(sums, n.k.splat(n.load(2, channel).value, kLanes));
    };
  return {n, std::move(form)};
}

//===----------------------------------------------------------------------===//
// What graph-pack-products makes of ConvInteger: x, packed weights
// (GraphPacking.h), zero point
// of x, addend of sums, scale, bias (the last three one or one for each
// channel)
//===----------------------------------------------------------------------===//

/// The parameter of a channel, as 16 numbers.
Value channelLanes(NodeBuilder &n, size_t input, Scalar channel) {
  Scalar single = n.count(input) == 1;
  return n.k.splat(n.load(input, select(single, n.index(0), channel)).value,
                   kLanes);
}

BlockedConv packedConv(NodeBuilder &n) {
  KernelBuilder &k = n.k;
  const int64_t group = n.integer("group", 1), inputs = n.integer("inputs", 0);
  Form form;
  form.kernel = perSpatial(n, "kernel_shape", n.rank(0) - 2, 1);
  form.inputs = n.index(inputs);
  form.parts = n.index((inputs + 1) / 2);
  form.outputs = n.size(1, 0) / double(group);
  form.group = n.index(group);
  form.pairs = true;
  form.finish = [&n, &k](Value sums, Scalar channel) -> Value {
    if (n.has(3))
      sums = k.add(sums, channelLanes(n, 3, channel));
    if (!n.has(4))
      return sums;
    Value result =
        arith::SIToFPOp::create(k.b, k.loc, k.vec(kLanes, k.f32()), sums);
    result = k.fmul(result, channelLanes(n, 4, channel));
    return n.has(5) ? k.fadd(result, channelLanes(n, 5, channel)) : result;
  };
  return {n, std::move(form)};
}

void shapePackedConvInteger(NodeBuilder &n) {
  Window window(n, perSpatial(n, "kernel_shape", n.rank(0) - 2, 1));
  const int64_t group = n.integer("group", 1), inputs = n.integer("inputs", 0);
  Scalar words = n.index((inputs + 1) / 2);
  for (Scalar size : window.kernel)
    words = words * size;
  n.require((n.size(0, 1) == double(inputs * group)) &
                (n.size(1, 0) % double(group) == 0) & (n.size(1, 1) == words),
            rt::kGraphSizes);
  for (size_t input : {3, 4, 5})
    if (n.has(input))
      n.require((n.count(input) == 1) | (n.count(input) == n.size(1, 0)),
                rt::kGraphSizes);
  if (n.has(2))
    n.require(n.count(2) == 1, rt::kGraphSizes);
  Scalars result = {n.size(0, 0), n.size(1, 0)};
  result.insert(result.end(), window.output.begin(), window.output.end());
  shapeOf(n, 0, result);
  packedConv(n).shape();
}

void computePackedConvInteger(NodeBuilder &n) { packedConv(n).compute(); }

constexpr Operator kTable[] = {
    {"isthmus.PackedConvInteger", shapePackedConvInteger,
     computePackedConvInteger, kHeavyGrain},
};
} // namespace

void isthmus::copyToScratch(NodeBuilder &n, Scalar from, Scalar stride,
                            Scalar to, Scalar begin, Scalar end) {
  KernelBuilder &k = n.k;
  if (NodeBuilder::known(stride) == 2) {
    // Of two vectors every second element; the last is not a whole vector away
    // from the end, as both are read to their ends.
    const VectorType lanes = k.vec(kLanes, k.f32());
    SmallVector<int64_t> even;
    for (int64_t i = 0; i < kLanes; ++i)
      even.push_back(2 * i);
    Scalar blocks = max(end - begin - 1, 0) / double(kLanes);
    n.loop(n.index(0), blocks, [&](Scalar block) {
      Scalar x = begin + block * double(kLanes);
      Value at = n.address(0, from + x * 2);
      Value picked = vector::ShuffleOp::create(
          k.b, k.loc, k.load(lanes, at), k.load(lanes, at, kLanes * 4), even);
      k.store(picked, k.ptr(k.scratch, ((to + x) * 4.0).value));
    });
    begin = begin + blocks * double(kLanes);
  }
  n.loop(begin, end, [&](Scalar x) {
    n.storeScratch((to + x) * 4.0, n.load(0, from + x * stride));
  });
}

void isthmus::shapeBlockedConv(NodeBuilder &n) { floatConv(n).shape(); }
void isthmus::computeBlockedConv(NodeBuilder &n) { floatConv(n).compute(); }

OperatorTable isthmus::packedConvolutionOperators() { return kTable; }
