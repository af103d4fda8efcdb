//===- TransposedConvolution.cpp - ConvTranspose --------------------------===//
#include "Convolutions.h"
#include "Matrix.h"
#include "Window.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

namespace {
struct Transposed {
  size_t spatial;
  Scalars kernel, stride, dilation, before, output;
  explicit Transposed(NodeBuilder &n)
      : spatial(n.rank(0) - 2), kernel(kernelSizes(n, 1)),
        stride(perSpatial(n, "strides", spatial, 1)),
        dilation(perSpatial(n, "dilations", spatial, 1)) {
    Scalars pads = perSpatial(n, "pads", 2 * spatial, 0),
            extra = perSpatial(n, "output_padding", spatial, 0);
    const std::string autoPad = n.text("auto_pad", "NOTSET");
    std::vector<int64_t> wanted = n.integers("output_shape");
    // Of the whole result, if it names all dimensions.
    if (wanted.size() == spatial + 2)
      wanted.erase(wanted.begin(), wanted.begin() + 2);
    for (size_t d = 0; d < spatial; ++d) {
      Scalar whole = (n.size(0, d + 2) - 1) * stride[d] + extra[d] +
                     (kernel[d] - 1) * dilation[d] + 1;
      const bool same = autoPad.starts_with("SAME");
      if (!same && wanted.empty()) {
        before.push_back(autoPad == "VALID" ? n.index(0) : pads[d]);
        output.push_back(
            autoPad == "VALID" ? whole : whole - pads[d] - pads[d + spatial]);
        continue;
      }
      Scalar size =
          wanted.empty() ? n.size(0, d + 2) * stride[d] : n.index(wanted[d]);
      Scalar total = whole - size, half = total / 2;
      before.push_back(autoPad == "SAME_UPPER" ? half : total - half);
      if (autoPad == "NOTSET")
        before.back() = half;
      output.push_back(size);
    }
  }
};

//===----------------------------------------------------------------------===//
// In f32: weights times input, of which each element is added where it belongs.
// A tile has some channels of the result to itself.
//===----------------------------------------------------------------------===//

bool isProduct(NodeBuilder &n) {
  return n.operand(0).type == DataType::F32 &&
         n.operand(1).type == DataType::F32;
}

class TransposedProduct {
public:
  explicit TransposedProduct(NodeBuilder &n)
      : n(n), t(n), last(t.spatial - 1), group(n.index(n.integer("group", 1))),
        inputs(n.size(0, 1) / double(n.integer("group", 1))),
        outputs(n.size(1, 1)) {
    taps = places = results = n.index(1);
    for (size_t d = 0; d < t.spatial; ++d) {
      taps = taps * t.kernel[d];
      places = places * n.size(0, d + 2);
      results = results * max(t.output[d], 0);
    }
    channels = max(n.index(kRows) / max(taps, 1), 1);
    bands = (outputs + channels - 1) / channels;
  }

  void shape() {
    n.setTiles(n.size(0, 0) * group * bands);
    n.setScratch(channels * taps * (inputs + double(kMatrixColumns)) * 4.0 +
                 64);
  }

  void compute() {
    n.loop({&n, n.k.begin, DataType::I64}, {&n, n.k.end, DataType::I64},
           [&](Scalar tile) {
             Scalar picture = tile / max(bands, 1);
             batch = picture / group;
             own = picture - batch * group;
             first = (tile - picture * bands) * channels;
             count = min(outputs - first, channels);
             copyWeights();
             start();
             n.loop(n.index(0),
                    (places + double(kMatrixColumns - 1)) /
                        double(kMatrixColumns),
                    [&](Scalar run) { addRun(run * double(kMatrixColumns)); });
           });
  }

private:
  /// Rows of a product: elements of the windows of some channels.
  static constexpr int64_t kRows = 24;

  NodeBuilder &n;
  const Transposed t;
  const size_t last;
  Scalar group, inputs, outputs;   ///< channels of a group
  Scalar taps, places, results;    ///< of a window, the input, the result
  Scalar channels, bands;          ///< of a tile; tiles of a group
  Scalar batch, own, first, count; ///< of the tile: group, channels

  /// [channels][elements of the window][inputs], first in the scratch memory.
  void copyWeights() {
    Scalar rows = count * taps;
    n.loop(n.index(0), inputs, [&](Scalar input) {
      Scalar from = ((own * inputs + input) * outputs + first) * taps;
      n.loop(n.index(0), rows, [&](Scalar row) {
        n.storeScratch((row * inputs + input) * 4.0, n.load(1, from + row));
      });
    });
  }

  Scalar resultOf(Scalar channel) {
    return ((batch * group + own) * outputs + first + channel) * results;
  }

  void start() {
    n.loop(n.index(0), count, [&](Scalar channel) {
      Scalar value = n.has(2) ? n.load(2, own * outputs + first + channel)
                              : n.constant(DataType::F32, 0);
      Scalar to = resultOf(channel);
      n.loop(n.index(0), results,
             [&](Scalar i) { n.store(n.out(), to + i, value); });
    });
  }

  /// Of places [begin, begin + kMatrixColumns) of the input.
  void addRun(Scalar begin) {
    Scalar columns = min(places - begin, double(kMatrixColumns));
    Scalar products = channels * taps * inputs;
    Matrix matrix;
    matrix.rows = count * taps;
    matrix.columns = columns;
    matrix.inner = inputs;
    matrix.aRow = inputs * 4.0;
    matrix.aInner = n.index(4);
    matrix.bInner = places * 4.0;
    matrix.cRow = n.index(kMatrixColumns * 4);
    matrix.a = n.k.scratch;
    matrix.b = n.address(0, (batch * group + own) * inputs * places + begin);
    matrix.c = n.k.ptr(n.k.scratch, (products * 4.0).value);
    emitMatrix(n, matrix);

    Scalar width = max(n.size(0, last + 2), 1);
    Scalars outer = n.sizes(0), extents = {count};
    outer = {outer.begin() + 2, outer.end() - 1};
    extents.insert(extents.end(), t.kernel.begin(), t.kernel.end());
    n.box(extents, {}, [&](State tap, State) {
      Scalar row = tap[0];
      for (size_t d = 0; d < t.spatial; ++d)
        row = row * t.kernel[d] + tap[d + 1];
      row = products + row * double(kMatrixColumns);
      Scalar end = begin + columns;
      n.loop(begin / width, (end + width - 1) / width, [&](Scalar line) {
        Scalars at = n.coordinates(line, outer);
        Scalar inside = n.truth(true), to = n.index(0);
        for (size_t d = 0; d < last; ++d) {
          Scalar place =
              at[d] * t.stride[d] - t.before[d] + tap[d + 1] * t.dilation[d];
          inside = inside & (place >= 0) & (place < t.output[d]);
          to = to * t.output[d] + place;
        }
        to = resultOf(tap[0]) + to * t.output[last];
        Scalar lineStart = line * width;
        n.when(inside, [&] {
          addLine(tap[last + 1], row + lineStart - begin, to,
                  max(begin - lineStart, 0), min(end - lineStart, width));
        });
      });
      return Scalars{};
    });
  }

  /// Elements [begin, end) of a line of the input, those whose place is in the
  /// result.
  void addLine(Scalar tap, Scalar from, Scalar to, Scalar begin, Scalar end) {
    Scalar stride = t.stride[last];
    Scalar shift = tap * t.dilation[last] - t.before[last];
    Scalar low = max((max(-shift, 0) + stride - 1) / stride, begin);
    Scalar reach = t.output[last] - 1 - shift;
    Scalar high = min(select(reach >= 0, reach / stride + 1, n.index(0)), end);
    n.loop(low, high, [&](Scalar x) {
      Scalar place = to + shift + x * stride;
      n.store(n.out(), place,
              n.load(n.out(), place) +
                  n.loadScratch(DataType::F32, (from + x) * 4.0));
    });
  }
};

void shapeConvTranspose(NodeBuilder &n) {
  Transposed t(n);
  const auto group = double(n.integer("group", 1));
  n.require(n.size(1, 0) == n.size(0, 1), rt::kGraphSizes);
  n.require(n.size(0, 1) % group == 0, rt::kGraphSizes);
  Scalar channels = n.size(1, 1) * group;
  if (n.has(2))
    n.require(n.count(2) == channels, rt::kGraphSizes);
  Scalars result = {n.size(0, 0), channels};
  result.insert(result.end(), t.output.begin(), t.output.end());
  shapeOf(n, 0, result);
  if (isProduct(n))
    TransposedProduct(n).shape();
}

void computeConvTranspose(NodeBuilder &n) {
  if (isProduct(n))
    return TransposedProduct(n).compute();
  Transposed t(n);
  const auto group = double(n.integer("group", 1));
  const DataType type = NodeBuilder::computeType(n.operand(0).type);
  Scalar perGroup = n.size(0, 1) / group, outputs = max(n.size(1, 1), 1);
  n.gather([&](State at) {
    Scalar groupIndex = at[1] / outputs, inGroup = at[1] - groupIndex * outputs;
    Scalar first = groupIndex * perGroup;
    Scalar sum =
        n.box(t.kernel, {n.constant(type, 0)}, [&](State offset, State state) {
          Scalars xAt = {at[0], first}, wAt = {first, inGroup};
          Scalar inside = n.truth(true);
          for (size_t d = 0; d < t.spatial; ++d) {
            Scalar from = at[d + 2] + t.before[d] - offset[d] * t.dilation[d];
            Scalar place = from / t.stride[d];
            inside = inside & (from >= 0) & (place * t.stride[d] == from) &
                     (place < n.size(0, d + 2));
            xAt.push_back(place);
            wAt.push_back(offset[d]);
          }
          return n.either(
              inside,
              [&] {
                Scalar x = n.linear(0, xAt), w = n.linear(1, wAt);
                return Scalars{
                    n.sum(n.index(0), perGroup, state[0], [&](Scalar c) {
                      return n.load(0, x + c * n.stride(0, 1)) *
                             n.load(1, w + c * n.stride(1, 0));
                    })};
              },
              [&] { return state.vec(); });
        })[0];
    return n.has(2) ? sum + n.load(2, at[1]) : sum;
  });
}

bool hasSpace(const NodeSpec &spec) {
  return spec.inputs[0].rank() >= 3 && spec.inputs.size() > 1 &&
         spec.inputs[1].rank() == spec.inputs[0].rank();
}

constexpr Operator kTable[] = {{"ConvTranspose", shapeConvTranspose,
                                computeConvTranspose, kHeavyGrain, hasSpace}};
} // namespace

OperatorTable isthmus::transposedConvolutionOperators() { return kTable; }
