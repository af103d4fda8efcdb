//===- Signal.cpp - Fourier transforms and windows ------------------------===//
#include "isthmus/Codegen/Graph/Operators.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

namespace {
/// cos and sin of 2 pi i / n; the angle is reduced while it is whole.
std::pair<Scalar, Scalar> rotation(NodeBuilder &n, Scalar i, Scalar length) {
  Scalar part = i % max(length, 1);
  Scalar angle = n.convert(part, DataType::F64) /
                 n.convert(max(length, 1), DataType::F64) * (2 * M_PI);
  return {n.convert(cosOf(angle), DataType::F32),
          n.convert(sinOf(angle), DataType::F32)};
}

/// A dimension that an input names, and sizes along it.
struct Transform {
  Scalar axis, length, given, result;
  bool inverse, oneSided;
  explicit Transform(NodeBuilder &n)
      : inverse(n.integer("inverse", 0)), oneSided(n.integer("onesided", 0)) {
    const auto rank = double(n.rank(0));
    axis = n.has(2) ? n.integerAt(2, 0) : n.index(-2);
    axis = select(axis < 0, axis + rank, axis);
    given = n.index(1);
    for (size_t d = 0; d < n.rank(0); ++d)
      given = select(axis == double(d), n.size(0, d), given);
    // What a one-sided transform leaves out, its inverse knows.
    Scalar whole = inverse && oneSided ? (given - 1) * 2 : given;
    length = n.has(1) ? n.integerAt(1, 0) : whole;
    result = oneSided && !inverse ? length / 2 + 1 : length;
  }
};

void shapeDFT(NodeBuilder &n) {
  Transform t(n);
  const size_t last = n.rank(0) - 1;
  n.require((t.axis >= 0) & (t.axis < double(last)), rt::kGraphValue);
  n.require((n.size(0, last) == 1) | (n.size(0, last) == 2), rt::kGraphSizes);
  Scalars result;
  for (size_t d = 0; d < last; ++d)
    result.push_back(select(t.axis == double(d), t.result, n.size(0, d)));
  result.push_back(n.index(t.inverse && t.oneSided ? 1 : 2));
  shapeOf(n, 0, result);
}

void computeDFT(NodeBuilder &n) {
  Transform t(n);
  const size_t last = n.rank(0) - 1;
  Scalar isComplex = n.size(0, last) == 2;
  // Beyond what is given there are zeros.
  Scalar used = min(t.given, t.length);
  n.gather([&](State at) {
    Scalars from(at.begin(), at.end());
    from[last] = n.index(0);
    Scalar place = n.index(0), stride = n.index(0);
    for (size_t d = 0; d < last; ++d) {
      Scalar along = t.axis == double(d);
      stride = select(along, n.stride(0, d), stride);
      place = select(along, at[d], place);
      from[d] = select(along, n.index(0), at[d]);
    }
    Scalar base = n.linear(0, from), zero = n.constant(DataType::F32, 0);
    auto sum =
        n.loop(n.index(0), t.inverse && t.oneSided ? t.length : used,
               {zero, zero}, [&](Scalar j, State state) -> Scalars {
                 Scalar source = j, mirrored = n.truth(false);
                 if (t.inverse && t.oneSided) {
                   mirrored = j >= t.given;
                   source = select(mirrored, t.length - j, j);
                   source = min(max(source, 0), max(t.given - 1, 0));
                 }
                 Scalar real = n.convert(n.load(0, base + source * stride),
                                         DataType::F32);
                 Scalar imaginary = n.convert(
                     n.load(0, base + source * stride +
                                   select(isComplex, n.index(1), n.index(0))),
                     DataType::F32);
                 imaginary = select(isComplex, imaginary, zero);
                 imaginary = select(mirrored, -imaginary, imaginary);
                 auto [c, s] = rotation(n, j * place, t.length);
                 if (!t.inverse)
                   s = -s;
                 return {state[0] + real * c - imaginary * s,
                         state[1] + real * s + imaginary * c};
               });
    Scalar result = select(at[last] == 0, sum[0], sum[1]);
    if (t.inverse)
      result = result / n.convert(t.length, DataType::F32);
    return result;
  });
}

/// signal, frame_step, window, frame_length
struct Frames {
  Scalar step, length, count, bins;
  explicit Frames(NodeBuilder &n) {
    step = n.integerAt(1, 0);
    length = n.has(3) ? n.integerAt(3, 0) : n.count(2);
    count = (n.size(0, 1) - length) / max(step, 1) + 1;
    bins = n.integer("onesided", 1) ? length / 2 + 1 : length;
  }
};

void shapeSTFT(NodeBuilder &n) {
  Frames f(n);
  n.require((f.step > 0) & (f.length > 0) & (f.length <= n.size(0, 1)),
            rt::kGraphValue);
  if (n.has(2))
    n.require(n.count(2) == f.length, rt::kGraphSizes);
  shapeOf(n, 0, {n.size(0, 0), f.count, f.bins, n.index(2)});
}

void computeSTFT(NodeBuilder &n) {
  Frames f(n);
  Scalar parts = n.rank(0) > 2 ? n.size(0, 2) : n.index(1);
  Scalar isComplex = parts == 2, zero = n.constant(DataType::F32, 0);
  n.gather([&](State at) {
    Scalar base = (at[0] * n.size(0, 1) + at[1] * f.step) * parts;
    auto sum =
        n.loop(n.index(0), f.length, {zero, zero},
               [&](Scalar j, State state) -> Scalars {
                 Scalar real =
                     n.convert(n.load(0, base + j * parts), DataType::F32);
                 Scalar imaginary = n.convert(
                     n.load(0, base + j * parts +
                                   select(isComplex, n.index(1), n.index(0))),
                     DataType::F32);
                 imaginary = select(isComplex, imaginary, zero);
                 if (n.has(2)) {
                   Scalar window = n.convert(n.load(2, j), DataType::F32);
                   real = real * window;
                   imaginary = imaginary * window;
                 }
                 auto [c, s] = rotation(n, j * at[2], f.length);
                 return {state[0] + real * c + imaginary * s,
                         state[1] + imaginary * c - real * s};
               });
    return select(at[3] == 0, sum[0], sum[1]);
  });
}

void shapeWindow(NodeBuilder &n) { shapeOf(n, 0, {n.integerAt(0, 0)}); }

/// a0 - a1 cos(2 pi i / n) + a2 cos(4 pi i / n)
void computeWindow(NodeBuilder &n, double a0, double a1, double a2) {
  Scalar size = n.integerAt(0, 0);
  Scalar period = n.integer("periodic", 1) ? size : size - 1;
  n.gather([&](State at) {
    Scalar result = rotation(n, at[0], period).first * -a1 + a0;
    return a2 == 0 ? result
                   : result + rotation(n, at[0] * 2, period).first * a2;
  });
}

void computeHann(NodeBuilder &n) { computeWindow(n, 0.5, 0.5, 0); }
void computeHamming(NodeBuilder &n) {
  computeWindow(n, 25.0 / 46, 1 - 25.0 / 46, 0);
}
void computeBlackman(NodeBuilder &n) { computeWindow(n, 0.42, 0.5, 0.08); }

/// num_mel_bins, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz
void shapeMel(NodeBuilder &n) {
  shapeOf(n, 0, {n.integerAt(1, 0) / 2 + 1, n.integerAt(0, 0)});
}

void computeMel(NodeBuilder &n) {
  const DataType type = DataType::F64;
  auto toMel = [&](Scalar hertz) {
    return logOf(hertz / 700.0 + 1.0) * (2595 / M_LN10);
  };
  Scalar bins = n.integerAt(0, 0);
  Scalar length = n.convert(n.integerAt(1, 0), type),
         rate = n.convert(n.integerAt(2, 0), type);
  Scalar low = toMel(n.convert(n.scalarInput(3), type)),
         high = toMel(n.convert(n.scalarInput(4), type));
  Scalar step = (high - low) / n.convert(bins + 2, type);
  // The bin of the spectrum at edge `i` of the triangles.
  auto edge = [&](Scalar i) {
    Scalar mel = n.convert(i, type) * step + low;
    Scalar hertz = (expOf(mel * (M_LN10 / 2595)) - 1.0) * 700.0;
    return floorOf((length + 1.0) * hertz / rate);
  };
  n.gather([&](State at) {
    Scalar bin = n.convert(at[0], type);
    Scalar left = edge(at[1]), center = edge(at[1] + 1),
           right = edge(at[1] + 2);
    Scalar zero = n.constant(type, 0);
    Scalar rising = (bin - left) / (center - left),
           falling = (right - bin) / (right - center);
    Scalar up = select((bin >= left) & (bin <= center), rising, zero);
    up = select((center == left) & (bin == center), n.constant(type, 1), up);
    return select((bin > center) & (bin < right), falling, up);
  });
}

bool notF64(const NodeSpec &spec) {
  return spec.inputs[0].type != DataType::F64;
}

constexpr Operator kTable[] = {
    {"DFT", shapeDFT, computeDFT, kHeavyGrain, notF64},
    {"STFT", shapeSTFT, computeSTFT, kHeavyGrain, notF64},
    {"HannWindow", shapeWindow, computeHann},
    {"HammingWindow", shapeWindow, computeHamming},
    {"BlackmanWindow", shapeWindow, computeBlackman},
    {"MelWeightMatrix", shapeMel, computeMel},
};
} // namespace

OperatorTable isthmus::signalOperators() { return kTable; }
