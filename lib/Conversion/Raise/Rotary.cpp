//===- Rotary.cpp - rotary embedding, told by its angles ------------------===//
#include "Raiser.h"

#include <cmath>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::raise;

namespace {
/// What rotary embedding turns the token at a position by.
struct Turn {
  int64_t position;
  std::vector<double> cosines, sines; ///< of each pair of features
};

/// Angles a position, and how much of them numbers of that type can say.
struct Frequencies {
  std::vector<double> values;
  double exactness; ///< of an angle
  int64_t last = 1; ///< position at which they were measured
};

} // namespace

/// Each turn makes frequencies more exact, whose error times its position is
/// less than half a circle; they are to come in order, twice as far each.
static void refine(Frequencies &frequencies, const Turn &turn) {
  const auto position = double(turn.position);
  for (size_t j = 0; j < frequencies.values.size(); ++j) {
    double &frequency = frequencies.values[j];
    const double angle = std::atan2(turn.sines[j], turn.cosines[j]);
    frequency +=
        std::remainder(angle - frequency * position, 2 * M_PI) / position;
  }
  frequencies.last = turn.position;
}

static bool agree(const Frequencies &frequencies, const Turn &turn) {
  const auto position = double(turn.position);
  // Exporters multiply position and frequency in f32.
  const double tolerance = 2 * frequencies.exactness + 2e-7 * position;
  const size_t half = frequencies.values.size();
  for (size_t j = 0; j < turn.cosines.size(); ++j) {
    const double angle = position * frequencies.values[j % half];
    if (std::fabs(std::cos(angle) - turn.cosines[j]) > tolerance ||
        std::fabs(std::sin(angle) - turn.sines[j]) > tolerance)
      return false;
  }
  return true;
}

static Rotation describe(const Frequencies &frequencies) {
  const std::vector<double> &values = frequencies.values;
  const auto half = double(values.size());
  // The second is not stretched where others are. What theta is is written
  // with few digits.
  double theta = values.size() > 1 ? std::pow(values[1], -half) : 1e4;
  const double error =
      half * theta *
      (1e-6 + frequencies.exactness /
                  (values[values.size() > 1] * double(frequencies.last)));
  for (double unit = std::pow(10, std::floor(std::log10(theta))); unit >= 1;
       unit /= 10)
    if (const double round = std::round(theta / unit) * unit;
        std::fabs(round - theta) <= error) {
      theta = round;
      break;
    }
  Rotation result{theta, {}};
  bool plain = true;
  for (size_t i = 0; i < values.size(); ++i) {
    const double factor = std::pow(theta, -double(i) / half) / values[i];
    const double inexact =
        2e-5 + 2 * frequencies.exactness /
                   (std::fabs(values[i]) * double(frequencies.last));
    plain &= std::fabs(factor - 1) <= inexact;
    result.factors.push_back(float(factor));
  }
  if (plain)
    result.factors.clear();
  return result;
}

Rotation Raiser::rotationOf(const Layout &layout, Value cosines, Value sines,
                            Value positions) {
  const size_t rank = layout.size();
  const int64_t size = joined(layout.back())[0].size, half = size / 2;
  auto sequence = find(layout, Factor::Sequence);
  auto type = cast<RankedTensorType>(cosines.getType());
  if (positions && type.getRank() == 2 && !type.isDynamicDim(0))
    context = std::min(context, type.getDimSize(0));
  auto numbers = [&](Value side, const Sample &sample) {
    Array array = sides.evaluate(side, sample);
    const int64_t width = array.sizes.empty() ? 0 : array.sizes.back();
    if (width != half && (positions || width != size))
      give("rotary embedding of a part of heads");
    if (positions)
      return array;
    // One row for each token and none for heads; RotaryEmbedding's have no
    // dimension for heads at all.
    std::vector<int64_t> expected(rank, 1);
    expected[*sequence] = sample.sequence;
    expected.back() = width;
    array.sizes.insert(array.sizes.begin(),
                       rank - std::min(rank, array.sizes.size()), 1);
    if (array.sizes != expected &&
        array.sizes != std::vector<int64_t>{1, 1, sample.sequence, width})
      give("angles that are not one for each token");
    return array;
  };
  struct Angles {
    Array cosines, sines;
    Turn turn(int64_t row, int64_t position) const {
      const int64_t width = cosines.sizes.back();
      auto part = [&](const Array &array) {
        const auto first = array.values.begin() + row * width;
        return std::vector<double>(first, first + width);
      };
      return {position, part(cosines), part(sines)};
    }
  };
  auto anglesOf = [&](const Sample &sample) {
    Angles angles{numbers(cosines, sample), numbers(sines, sample)};
    if (angles.cosines.sizes != angles.sines.sizes)
      give("rotary embedding with other cosines than sines");
    return angles;
  };
  const double exactness = type.getElementType().isF16()    ? 0x1p-11
                           : type.getElementType().isBF16() ? 0x1p-8
                                                            : 0x1p-22;
  Frequencies frequencies{std::vector<double>(size_t(half)), exactness};
  auto check = [&](const Turn &turn) {
    if (!agree(frequencies, turn))
      give(fmt::format("angles of position {} are not those of rotary "
                       "embedding",
                       turn.position));
  };
  const std::vector<Sample> samples = {{7, 0}, {3, hasPast ? 5 : 0}};
  // Of tables every row is looked at, of what is worked out a few.
  if (positions || !hasPast) {
    const Sample longest{positions ? 1 : std::min<int64_t>(context, 1024), 0};
    const Angles all = anglesOf(longest);
    const int64_t rows = positions ? context : longest.sequence;
    if (int64_t(all.cosines.values.size()) < rows * all.cosines.sizes.back())
      give("rotary embedding of positions that the table does not have");
    for (int64_t position = 1; position < rows; position *= 2)
      refine(frequencies, all.turn(position, position));
    for (int64_t position = 0; position < rows; ++position)
      check(all.turn(position, position));
  } else {
    for (int64_t position = 1; position < context; position *= 2)
      refine(frequencies, anglesOf({1, position}).turn(0, position));
    for (int64_t position = 1; position < context; position *= 2)
      check(anglesOf({1, position}).turn(0, position));
  }
  for (const Sample &sample : samples) {
    if (positions) {
      const Array rows = sides.evaluate(positions, sample);
      for (int64_t i = 0; i < sample.sequence; ++i)
        if (int64_t(rows.values.size()) != sample.sequence ||
            rows.values[size_t(i)] != double(sample.past + i))
          give("rotary embedding of other positions than the tokens'");
      continue;
    }
    const Angles angles = anglesOf(sample);
    for (int64_t i = 0; i < sample.sequence; ++i)
      check(angles.turn(i, sample.past + i));
  }
  return describe(frequencies);
}

TermRef Raiser::rotate(const TermRef &x, Value cosines, Value sines,
                       Value positions) {
  if (x->layout.empty())
    give("rotary embedding of something else than heads");
  const Dimension last = joined(x->layout.back());
  if (x->kind != Kind::Rows || last.size() != 1 || last[0].stride != 1 ||
      last[0].kind != Factor::Feature || last[0].size % 2 ||
      !find(x->layout, Factor::Sequence) || !factorOf(x->function))
    give("rotary embedding of something else than heads");
  const int64_t size = last[0].size;
  const std::vector<const void *> key = {cosines.getAsOpaquePointer(),
                                         sines.getAsOpaquePointer(),
                                         positions.getAsOpaquePointer()};
  auto found = rotations.find({key, x->layout});
  if (found == rotations.end())
    found = rotations
                .emplace(std::pair(key, x->layout),
                         rotationOf(x->layout, cosines, sines, positions))
                .first;
  const Rotation &rotation = found->second;
  Value value = baseOf(*x);
  TermRef result = rowsTerm(
      fm::RotaryOp::create(
          b, loc, value.getType(), value, rowsArgument,
          b.getI64IntegerAttr(size), b.getF64FloatAttr(rotation.theta),
          rotation.factors.empty() ? nullptr
                                   : b.getDenseF32ArrayAttr(rotation.factors)),
      x->layout);
  result->function = x->function;
  return result;
}

TermRef Raiser::readRotary(graph::NodeOp node) {
  TermRef x = data(node);
  if (integer(node, "interleaved", 0) ||
      integer(node, "rotary_embedding_dim", 0))
    give("rotary embedding of neighbours, or of a part of heads");
  const Layout layout = x->layout;
  TermRef result =
      rotate(heads(x, integer(node, "num_heads", 0)), operand(node, 1),
             operand(node, 2), has(node, 3) ? operand(node, 3) : Value());
  return with(*result, layout);
}
