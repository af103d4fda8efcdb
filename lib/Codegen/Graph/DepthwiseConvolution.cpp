//===- DepthwiseConvolution.cpp - a channel at a time, in f32 -------------===//
//
// A tile is a channel of the result. Its channel of the input is written out
// with zeros around it and, where windows move by s, with each s-th column side
// by side: then 16 neighbours of a line are 16 neighbours in memory for every
// element of the window.
//
//===----------------------------------------------------------------------===//
#include "Convolutions.h"
#include "Matrix.h"
#include "Window.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

namespace {
/// Lines of the result at once, and vectors of each.
constexpr int64_t kLines = 4, kVectors = 2;
/// Elements of a window at most: the code names each.
constexpr int64_t kMostTaps = 64;

class DepthwiseConv {
public:
  explicit DepthwiseConv(NodeBuilder &n)
      : n(n), k(n.k), window(n, kernelSizes(n, 1)),
        last(window.dimensions - 1) {
    step = *NodeBuilder::known(window.stride[last]);
    spread = *NodeBuilder::known(window.dilation[last]);
    taps = n.operand(1).sizes[last + 2];
    width = max(window.output[last], 0);
    padded = width + double((taps - 1) * spread / step + 1);
    lines = lineCount = n.index(1);
    if (last == 1) {
      lineCount = max(window.output[0], 0);
      lines = max((lineCount - 1) * window.stride[0] +
                      (window.kernel[0] - 1) * window.dilation[0] + 1,
                  0);
    }
  }

  void shape() {
    n.setTiles(n.size(0, 0) * n.size(1, 0));
    // Behind the last line a vector may be read.
    n.setScratch((lines * padded * double(step) + double(kVectors * kLanes)) *
                 4.0);
  }

  void compute() {
    Scalar outputs = n.size(1, 0);
    Scalar perChannel = max(outputs / max(n.size(0, 1), 1), 1);
    n.loop({&n, k.begin, DataType::I64}, {&n, k.end, DataType::I64},
           [&](Scalar tile) {
             Scalar batch = tile / max(outputs, 1),
                    channel = tile - batch * outputs;
             writeOut(batch * n.size(0, 1) + channel / perChannel);
             addUp(tile, channel);
           });
  }

private:
  NodeBuilder &n;
  KernelBuilder &k;
  Window window;
  const size_t last;
  int64_t step, spread, taps; ///< along a line
  Scalar width, padded, lines, lineCount;

  void writeOut(Scalar channel) {
    Scalar zero = n.constant(DataType::F32, 0);
    n.loop(n.index(0), lines, [&](Scalar line) {
      Scalar y = last ? line - window.before[0] : line;
      Scalar inside = n.truth(true), from = channel;
      if (last) {
        inside = (y >= 0) & (y < window.input[0]);
        from = from * window.input[0] + y;
      }
      from = from * window.input[last];
      for (int64_t phase = 0; phase < step; ++phase) {
        // Element x of the line is column x * step + shift of the picture.
        Scalar shift = n.index(phase) - window.before[last];
        Scalar to = (line * double(step) + double(phase)) * padded;
        Scalar low =
            min((max(-shift, 0) + double(step - 1)) / double(step), padded);
        Scalar reach = window.input[last] - 1 - shift;
        Scalar high =
            select(inside & (reach >= 0), reach / double(step) + 1, n.index(0));
        high = max(min(high, padded), low);
        high = select(inside, high, low);
        n.loop(n.index(0), low,
               [&](Scalar x) { n.storeScratch((to + x) * 4.0, zero); });
        copyToScratch(n, from + shift, n.index(step), to, low, high);
        n.loop(high, padded,
               [&](Scalar x) { n.storeScratch((to + x) * 4.0, zero); });
      }
    });
  }

  void addUp(Scalar picture, Scalar channel) {
    Scalar blocks = lineCount / double(kLines), done = blocks * double(kLines);
    n.loop(n.index(0), blocks, [&](Scalar block) {
      addLines(picture, channel, block * double(kLines), kLines);
    });
    n.loop(done, lineCount,
           [&](Scalar line) { addLines(picture, channel, line, 1); });
  }

  void addLines(Scalar picture, Scalar channel, Scalar line, int64_t count) {
    constexpr int64_t kWide = kVectors * kLanes;
    Scalar wide = width / double(kWide), done = wide * double(kWide);
    n.loop(n.index(0), wide, [&](Scalar block) {
      addVectors(picture, channel, line, count, block * double(kWide),
                 kVectors);
    });
    Scalar rest = (width - done + double(kLanes - 1)) / double(kLanes);
    n.loop(n.index(0), rest, [&](Scalar block) {
      addVectors(picture, channel, line, count, done + block * double(kLanes),
                 1);
    });
  }

  /// Elements of some lines of the result, from x on. A line of the input is
  /// read once for all of them.
  void addVectors(Scalar picture, Scalar channel, Scalar line, int64_t count,
                  Scalar x, int64_t vectors) {
    const VectorType lanes = k.vec(kLanes, k.f32());
    const int64_t rows = last ? n.operand(1).sizes[2] : 1;
    const int64_t down = last ? *NodeBuilder::known(window.stride[0]) : 1,
                  apart = last ? *NodeBuilder::known(window.dilation[0]) : 1;
    Value start =
        n.has(2) ? k.splat(n.load(2, channel).value, kLanes) : k.zeros(kLanes);
    KernelBuilder::Values sums(size_t(count * vectors), start);
    Scalar first = line * double(down);
    for (int64_t read = 0; read <= (count - 1) * down + (rows - 1) * apart;
         ++read) {
      // Lines of the result that take it, and in which row of the window.
      SmallVector<std::pair<int64_t, int64_t>> takers;
      for (int64_t own = 0; own < count; ++own) {
        const int64_t offset = read - own * down;
        if (offset >= 0 && offset % apart == 0 && offset / apart < rows)
          takers.emplace_back(own, offset / apart);
      }
      if (takers.empty())
        continue;
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t shift = tap * spread;
        Scalar at =
            ((first + double(read)) * double(step) + double(shift % step)) *
                padded +
            double(shift / step) + x;
        Value base = k.ptr(k.scratch, (at * 4.0).value);
        KernelBuilder::Values loaded;
        for (int64_t v = 0; v < vectors; ++v)
          loaded.push_back(k.load(lanes, base, v * kLanes * 4));
        for (auto [own, row] : takers) {
          Value weight = k.splat(n.load(1, channel * double(rows * taps) +
                                               double(row * taps + tap))
                                     .value,
                                 kLanes);
          for (int64_t v = 0; v < vectors; ++v) {
            Value &sum = sums[size_t(own * vectors + v)];
            sum = k.fma(weight, loaded[size_t(v)], sum);
          }
        }
      }
    }
    for (int64_t own = 0; own < count; ++own)
      for (int64_t v = 0; v < vectors; ++v) {
        Scalar to = (picture * lineCount + line + double(own)) * width + x +
                    double(v * kLanes);
        Value address = n.address(n.out(), to);
        Value sum = sums[size_t(own * vectors + v)];
        if (vectors == kVectors)
          k.store(sum, address);
        else
          storeLanes(n, sum, address, width - x);
      }
  }
};
} // namespace

bool isthmus::isDepthwise(NodeBuilder &n) {
  const std::vector<int64_t> &sizes = n.operand(1).sizes;
  if (n.integer("group", 1) == 1 || sizes.size() > 4 || sizes.size() < 3 ||
      sizes[1] != 1)
    return false;
  int64_t taps = 1;
  for (size_t d = 2; d < sizes.size(); ++d) {
    if (sizes[d] <= 0 || sizes[d] > kMostTaps)
      return false;
    taps *= sizes[d];
  }
  for (int64_t stride : n.integers("strides"))
    if (stride <= 0 || stride > 8)
      return false;
  for (int64_t dilation : n.integers("dilations"))
    if (dilation <= 0 || dilation > 1024)
      return false;
  return taps <= kMostTaps;
}

void isthmus::shapeDepthwiseConv(NodeBuilder &n) { DepthwiseConv(n).shape(); }
void isthmus::computeDepthwiseConv(NodeBuilder &n) {
  DepthwiseConv(n).compute();
}
