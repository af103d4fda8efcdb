//===- Vision.cpp - sampling pictures at other places ---------------------===//
#include "isthmus/Codegen/Graph/Operators.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;

namespace {
/// Coordinates are worked out in f64: which neighbour is nearest hangs on them.
constexpr DataType kPlace = DataType::F64;

Scalar clampTo(Scalar x, Scalar low, Scalar high) {
  return min(max(x, low), high);
}

/// The weight of an element at distance |x| (Keys, 1981).
Scalar cubicWeight(Scalar x, double a) {
  Scalar t = abs(x);
  Scalar inner = ((t * (a + 2) - (a + 3)) * t) * t + 1.0;
  Scalar outer = ((t * a - 5 * a) * t + 8 * a) * t - 4 * a;
  Scalar zero = x.builder->constant(x.type, 0);
  return select(t <= 1, inner, select(t < 2, outer, zero));
}

//===----------------------------------------------------------------------===//
// Resize: X, roi, scales, sizes
//===----------------------------------------------------------------------===//

class Resize {
public:
  explicit Resize(NodeBuilder &n)
      : mode(n.text("mode", "nearest")),
        transformation(n.text("coordinate_transformation_mode", "half_pixel")),
        n(n) {
    const size_t rank = n.rank(0);
    // Upsample of older models has the scales in place of the roi.
    const bool upsample = n.spec.op == "Upsample";
    const size_t scalesInput = upsample ? 1 : 2, sizesInput = 3;
    const bool sized = !upsample && n.has(sizesInput);
    std::vector<int64_t> axes = n.integers("axes");
    if (axes.empty())
      for (size_t d = 0; d < rank; ++d)
        axes.push_back(int64_t(d));
    resized.assign(rank, false);
    scales.assign(rank, n.constant(kPlace, 1));
    sizes = n.sizes(0);
    starts.assign(rank, n.constant(kPlace, 0));
    ends.assign(rank, n.constant(kPlace, 1));
    for (size_t i = 0; i < axes.size(); ++i) {
      const size_t d = n.axis(axes[i], rank);
      resized[d] = true;
      Scalar size = n.convert(n.size(0, d), kPlace);
      if (sized) {
        sizes[d] = n.integerAt(sizesInput, i);
        scales[d] = n.convert(sizes[d], kPlace) / size;
      } else {
        scales[d] = n.convert(n.elementAt(scalesInput, i), kPlace);
        sizes[d] = n.convert(floorOf(size * scales[d]), DataType::I64);
      }
      if (transformation == "tf_crop_and_resize") {
        starts[d] = n.convert(n.elementAt(1, i), kPlace);
        ends[d] = n.convert(n.elementAt(1, i + axes.size()), kPlace);
      }
    }
    const std::string policy = n.text("keep_aspect_ratio_policy", "stretch");
    if (sized && policy != "stretch")
      keepRatio(policy == "not_larger");
  }

  Scalars sizes;
  const std::string mode, transformation;

  Scalar element(State at) {
    const double extrapolation = n.number("extrapolation_value", 0);
    std::vector<Taps> taps;
    Scalars extents;
    Scalar outside = n.truth(false);
    for (size_t d = 0; d < at.size(); ++d) {
      taps.push_back(tapsOf(d, at[d]));
      extents.push_back(taps.back().count);
      outside = outside | taps.back().outside;
    }
    Scalar sum =
        n.box(extents, {n.constant(kPlace, 0)},
              [&](State tap, State state) -> Scalars {
                Scalar weight = n.constant(kPlace, 1);
                Scalars from;
                for (size_t d = 0; d < tap.size(); ++d) {
                  if (resized[d] && mode != "nearest")
                    weight = weight * taps[d].weight(tap[d]);
                  Scalar place = taps[d].first + tap[d];
                  from.push_back(clampTo(place, n.index(0), n.size(0, d) - 1));
                }
                return {state[0] + n.convert(n.load(0, from), kPlace) * weight};
              })[0];
    return select(outside, n.constant(kPlace, extrapolation), sum);
  }

private:
  NodeBuilder &n;
  std::vector<bool> resized;
  Scalars scales, starts, ends;

  /// Neighbours along one dimension and their weights.
  struct Taps {
    Scalar first, count, outside;
    std::function<Scalar(Scalar)> weight;
  };

  void keepRatio(bool notLarger) {
    Scalar common;
    for (size_t d = 0; d < resized.size(); ++d)
      if (resized[d])
        common =
            common ? notLarger ? min(common, scales[d]) : max(common, scales[d])
                   : scales[d];
    for (size_t d = 0; d < resized.size(); ++d)
      if (resized[d]) {
        scales[d] = common;
        Scalar exact = common * n.convert(n.size(0, d), kPlace);
        sizes[d] = n.convert(floorOf(exact + 0.5), DataType::I64);
      }
  }

  /// Where element `out` of the result lies in the input.
  Scalar position(size_t d, Scalar out) {
    Scalar x = n.convert(out, kPlace), size = n.convert(n.size(0, d), kPlace),
           scale = scales[d], width = scale * size;
    Scalar half = (x + 0.5) / scale - 0.5;
    if (transformation == "asymmetric")
      return x / scale;
    if (transformation == "align_corners")
      return select(width == 1, n.constant(kPlace, 0),
                    x * (size - 1.0) / (width - 1.0));
    if (transformation == "pytorch_half_pixel")
      return select(width == 1, n.constant(kPlace, -0.5), half);
    if (transformation == "half_pixel_symmetric") {
      Scalar whole = n.convert(sizes[d], kPlace);
      return size * 0.5 * (1.0 - whole / width) + half;
    }
    if (transformation == "tf_crop_and_resize") {
      Scalar span = (ends[d] - starts[d]) * (size - 1.0);
      return select(width == 1, (ends[d] - starts[d]) * (size - 1.0) * 0.5,
                    x * span / (width - 1.0)) +
             starts[d] * (size - 1.0);
    }
    return half;
  }

  Taps tapsOf(size_t d, Scalar out) {
    Scalar one = n.index(1), no = n.truth(false);
    if (!resized[d])
      return {out, one, no, {}};
    Scalar x = position(d, out);
    Scalar limit = n.size(0, d);
    Scalar outside = transformation == "tf_crop_and_resize"
                         ? (x < 0) | (x > n.convert(limit - 1, kPlace))
                         : no;
    auto whole = [&](Scalar value) { return n.convert(value, DataType::I64); };
    if (mode == "nearest") {
      const std::string rounding =
          n.text("nearest_mode",
                 n.spec.op == "Upsample" ? "floor" : "round_prefer_floor");
      Scalar place = rounding == "floor"               ? floorOf(x)
                     : rounding == "ceil"              ? ceilOf(x)
                     : rounding == "round_prefer_ceil" ? floorOf(x + 0.5)
                                                       : ceilOf(x - 0.5);
      return {whole(place), one, outside, {}};
    }
    const bool linear = mode == "linear", antialias = n.integer("antialias", 0),
               exclude = n.integer("exclude_outside", 0);
    const double a = n.number("cubic_coeff_a", -0.75), reach = linear ? 1 : 2;
    // The filter widens when the picture shrinks.
    Scalar narrow = antialias ? min(scales[d], 1) : n.constant(kPlace, 1);
    // The element before x, so that the rest is in (0, 1].
    Scalar base = ceilOf(x) - 1.0, rest = x - base;
    Scalar start = floorOf(n.constant(kPlace, -reach) / narrow) + 1.0;
    Scalar first = whole(base + start);
    Scalar count = whole(2.0 - start * 2.0);
    auto raw = [=, this](Scalar tap) {
      Scalar distance = (n.convert(tap, kPlace) + start - rest) * narrow;
      Scalar weight =
          linear ? max(1.0 - abs(distance), 0) : cubicWeight(distance, a);
      if (exclude) {
        Scalar place = first + tap;
        weight = select((place >= 0) & (place < limit), weight,
                        n.constant(kPlace, 0));
      }
      return weight;
    };
    if (!antialias && !exclude)
      return {first, count, outside, raw};
    Scalar total = n.sum(n.index(0), count, n.constant(kPlace, 0), raw);
    return {first, count, outside,
            [=](Scalar tap) { return raw(tap) / total; }};
  }
};

void shapeResize(NodeBuilder &n) {
  for (Scalar size : n.sizes(0))
    n.require(size > 0, rt::kGraphSizes);
  shapeOf(n, 0, Resize(n).sizes);
}

void computeResize(NodeBuilder &n) {
  Resize resize(n);
  const DataType type = n.operand(0).type;
  n.gather([&](State at) {
    Scalar value = resize.element(at);
    if (!isFloat(type) && resize.mode != "nearest") {
      value = roundOf(value);
      value = clampTo(value, n.convert(n.lowest(type), kPlace),
                      n.convert(n.highest(type), kPlace));
    }
    return n.convert(value, type);
  });
}

//===----------------------------------------------------------------------===//
// GridSample
//===----------------------------------------------------------------------===//

void shapeGridSample(NodeBuilder &n) {
  const size_t spatial = n.rank(0) - 2;
  n.require((n.size(1, 0) == n.size(0, 0)) &
                (n.size(1, n.rank(1) - 1) == double(spatial)),
            rt::kGraphSizes);
  Scalars result = {n.size(0, 0), n.size(0, 1)};
  for (size_t d = 0; d < spatial; ++d) {
    result.push_back(n.size(1, d + 1));
    n.require(n.size(0, d + 2) > 0, rt::kGraphSizes);
  }
  shapeOf(n, 0, result);
}

/// Back and forth between two ends.
Scalar reflect(Scalar x, Scalar low, Scalar high) {
  Scalar range = max(high - low, 1e-9);
  Scalar offset = abs(x - low), turns = floorOf(offset / range);
  Scalar rest = offset - turns * range;
  Scalar half = turns * 0.5;
  Scalar odd = floorOf(half) != half;
  return select(odd, high - rest, low + rest);
}

void computeGridSample(NodeBuilder &n) {
  const size_t spatial = n.rank(0) - 2;
  const bool align = n.integer("align_corners", 0);
  const std::string padding = n.text("padding_mode", "zeros");
  std::string mode = n.text("mode", "linear");
  const bool nearest = mode == "nearest",
             cubic = mode == "cubic" || mode == "bicubic";
  n.gather([&](State at) {
    Scalars gridAt = {at[0]};
    gridAt.insert(gridAt.end(), at.begin() + 2, at.end());
    gridAt.push_back(n.index(0));
    Scalar grid = n.linear(1, gridAt);
    Scalars places;
    for (size_t d = 0; d < spatial; ++d) {
      // The grid names the last dimension first.
      Scalar g = n.convert(n.load(1, grid + double(spatial - 1 - d)), kPlace);
      Scalar size = n.convert(n.size(0, d + 2), kPlace);
      Scalar x = align ? (g + 1.0) * 0.5 * (size - 1.0)
                       : ((g + 1.0) * size - 1.0) * 0.5;
      if (nearest)
        x = roundOf(x);
      Scalar low = n.constant(kPlace, align ? 0 : -0.5),
             high = align ? size - 1.0 : size - 0.5;
      if (padding == "border")
        x = clampTo(x, n.constant(kPlace, 0), size - 1.0);
      else if (padding == "reflection")
        x = select((x < low) | (x > high), reflect(x, low, high), x);
      // NaN, and what no picture has.
      x = select(abs(x) < 1e9, x, n.constant(kPlace, -1e9));
      places.push_back(x);
    }
    const int64_t taps = nearest ? 1 : cubic ? 4 : 2;
    Scalars extents(spatial, n.index(taps));
    Scalar sum = n.box(
        extents, {n.constant(kPlace, 0)},
        [&](State tap, State state) -> Scalars {
          Scalar weight = n.constant(kPlace, 1), inside = n.truth(true);
          Scalars from = {at[0], at[1]};
          for (size_t d = 0; d < spatial; ++d) {
            Scalar base = nearest ? places[d] : floorOf(places[d]);
            Scalar place =
                base + n.convert(tap[d], kPlace) - (cubic ? 1.0 : 0.0);
            Scalar distance = places[d] - place;
            if (cubic)
              weight = weight * cubicWeight(distance, -0.75);
            else if (!nearest)
              weight = weight * (1.0 - abs(distance));
            Scalar size = n.convert(n.size(0, d + 2), kPlace);
            Scalar low = n.constant(kPlace, align ? 0 : -0.5),
                   high = align ? size - 1.0 : size - 0.5;
            if (padding == "reflection")
              place = select((place < 0) | (place > size - 1.0),
                             reflect(place, low, high), place);
            else if (padding == "zeros")
              inside = inside & (place >= 0) & (place <= size - 1.0);
            place = clampTo(place, n.constant(kPlace, 0), size - 1.0);
            from.push_back(n.convert(place, DataType::I64));
          }
          Scalar value = n.convert(n.load(0, from), kPlace) * weight;
          return {state[0] + select(inside, value, n.constant(kPlace, 0))};
        })[0];
    return n.convert(sum, n.operand(0).type);
  });
}

//===----------------------------------------------------------------------===//
// RoiAlign: X, rois, batch_indices
//===----------------------------------------------------------------------===//

void shapeRoiAlign(NodeBuilder &n) {
  n.require((n.size(1, 1) == 4) & (n.count(2) == n.size(1, 0)) &
                (n.count(0) > 0),
            rt::kGraphSizes);
  shapeOf(n, 0,
          {n.size(1, 0), n.size(0, 1), n.index(n.integer("output_height", 1)),
           n.index(n.integer("output_width", 1))});
}

void computeRoiAlign(NodeBuilder &n) {
  const double scale = n.number("spatial_scale", 1);
  const int64_t ratio = n.integer("sampling_ratio", 0);
  const bool half =
      n.text("coordinate_transformation_mode", "half_pixel") == "half_pixel";
  const bool maximum = n.text("mode", "avg") == "max";
  const double shift = half ? 0.5 : 0;
  n.gather([&](State at) {
    Scalar batch = checkedIndex(n, n.convert(n.load(2, at[0]), DataType::I64),
                                n.size(0, 0));
    auto corner = [&](int which) {
      return n.convert(n.load(1, at[0] * 4 + double(which)), kPlace) * scale -
             shift;
    };
    Scalar start[] = {corner(1), corner(0)}, end[] = {corner(3), corner(2)};
    Scalar bin[2], samples[2];
    for (size_t d = 0; d < 2; ++d) {
      Scalar span = end[d] - start[d];
      if (!half)
        span = max(span, 1);
      bin[d] = span / n.convert(n.size(n.out(), d + 2), kPlace);
      samples[d] =
          ratio > 0 ? n.index(ratio) : n.convert(ceilOf(bin[d]), DataType::I64);
    }
    Scalar base = n.linear(0, Scalars{batch, at[1]});
    Scalar zero = n.constant(kPlace, 0);
    auto result =
        n.box({samples[0], samples[1]}, {maximum ? n.lowest(kPlace) : zero},
              [&](State sample, State state) -> Scalars {
                Scalar first[2], weight[2], inside = n.truth(true);
                for (size_t d = 0; d < 2; ++d) {
                  Scalar size = n.convert(n.size(0, d + 2), kPlace);
                  Scalar x = start[d] + n.convert(at[d + 2], kPlace) * bin[d] +
                             (n.convert(sample[d], kPlace) + 0.5) * bin[d] /
                                 n.convert(samples[d], kPlace);
                  inside = inside & (x >= -1) & (x <= size);
                  x = clampTo(x, zero, size - 1.0);
                  x = select(x == x, x, zero);
                  Scalar below = min(floorOf(x), size - 1.0);
                  first[d] = n.convert(below, DataType::I64);
                  weight[d] = x - below;
                }
                Scalar sum = maximum ? n.lowest(kPlace) : zero;
                for (int dy : {0, 1})
                  for (int dx : {0, 1}) {
                    Scalar row = min(first[0] + double(dy), n.size(0, 2) - 1),
                           column =
                               min(first[1] + double(dx), n.size(0, 3) - 1);
                    Scalar w = (dy ? weight[0] : 1.0 - weight[0]) *
                               (dx ? weight[1] : 1.0 - weight[1]);
                    Scalar term =
                        n.convert(n.load(0, base + row * n.size(0, 3) + column),
                                  kPlace) *
                        w;
                    sum = maximum ? max(sum, term) : sum + term;
                  }
                Scalar none = maximum ? n.lowest(kPlace) : zero;
                sum = select(inside, sum, none);
                return {maximum ? max(state[0], sum) : state[0] + sum};
              })[0];
    if (!maximum)
      result = result / max(n.convert(samples[0] * samples[1], kPlace), 1);
    return n.convert(result, n.operand(0).type);
  });
}

//===----------------------------------------------------------------------===//
// AffineGrid: theta, size
//===----------------------------------------------------------------------===//

void shapeAffineGrid(NodeBuilder &n) {
  const size_t spatial = n.rank(n.out()) - 2;
  n.require((n.size(0, 1) == double(spatial)) &
                (n.size(0, 2) == double(spatial + 1)) &
                (n.count(1) == double(spatial + 2)) &
                (n.integerAt(1, 0) == n.size(0, 0)),
            rt::kGraphSizes);
  Scalars result = {n.size(0, 0)};
  for (size_t d = 0; d < spatial; ++d)
    result.push_back(n.integerAt(1, d + 2));
  result.push_back(n.index(int64_t(spatial)));
  shapeOf(n, 0, result);
}

void computeAffineGrid(NodeBuilder &n) {
  const size_t spatial = n.rank(n.out()) - 2;
  const bool align = n.integer("align_corners", 0);
  n.gather([&](State at) {
    Scalar sum = n.constant(kPlace, 0);
    for (size_t j = 0; j <= spatial; ++j) {
      Scalar factor = n.convert(
          n.load(0, Scalars{at[0], at.back(), n.index(int64_t(j))}), kPlace);
      if (j == spatial) {
        sum = sum + factor;
        continue;
      }
      // The last dimension comes first.
      const size_t d = spatial - j;
      Scalar size = n.convert(n.size(n.out(), d), kPlace),
             place = n.convert(at[d], kPlace);
      Scalar x = align ? select(size == 1, n.constant(kPlace, -1),
                                place * 2.0 / (size - 1.0) - 1.0)
                       : (place * 2.0 + 1.0) / size - 1.0;
      sum = sum + factor * x;
    }
    return n.convert(sum, n.operand(0).type);
  });
}

bool isPicture(const NodeSpec &spec) { return spec.inputs[0].rank() == 4; }

constexpr Operator kTable[] = {
    {"Resize", shapeResize, computeResize, kHeavyGrain},
    {"Upsample", shapeResize, computeResize, kHeavyGrain,
     [](const NodeSpec &spec) { return spec.inputs.size() == 2; }},
    {"GridSample", shapeGridSample, computeGridSample, kHeavyGrain},
    {"AffineGrid", shapeAffineGrid, computeAffineGrid},
    {"RoiAlign", shapeRoiAlign, computeRoiAlign, kHeavyGrain, isPicture},
};
} // namespace

OperatorTable isthmus::visionOperators() { return kTable; }
