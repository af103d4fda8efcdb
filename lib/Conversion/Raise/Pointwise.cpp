//===- Pointwise.cpp - what is done to elements, and norms ----------------===//
#include "Raiser.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::raise;

/// A function of what a term stands for.
TermRef Raiser::changed(const TermRef &term, const Function &function) {
  if (term->kind != Kind::Rows && term->kind != Kind::Mean &&
      term->kind != Kind::Half)
    give("its operand is no row");
  TermRef result = with(*term, term->layout);
  result->function = after(term->function, function);
  result->written = {};
  return result;
}

TermRef Raiser::readUnary(graph::NodeOp node, const Function &function) {
  return changed(data(node), function);
}

static double compute(StringRef op, double x, double y) {
  return op == "Add"   ? x + y
         : op == "Sub" ? x - y
         : op == "Mul" ? x * y
         : op == "Div" ? x / y
                       : std::pow(x, y);
}

TermRef Raiser::withNumber(StringRef op, const TermRef &term, double number,
                           bool numberFirst) {
  const std::string name = op.str();
  Function function = [=](double x) {
    return numberFirst ? compute(name, number, x) : compute(name, x, number);
  };
  if (term->kind == Kind::Scores) {
    auto factor = factorOf(function);
    if (!factor || !term->sides.empty())
      give("changes scores by something else than a factor");
    TermRef result = with(*term, term->layout);
    result->number *= *factor;
    return result;
  }
  if (term->kind == Kind::Cached) {
    // A factor of the keys is one of the scores.
    auto factor = factorOf(function);
    if (!factor)
      give("changes the cache");
    TermRef result = with(*term, term->layout);
    result->number *= *factor;
    return result;
  }
  return changed(term, function);
}

TermRef Raiser::combine(StringRef op, const TermRef &x, const TermRef &y) {
  const bool product = op == "Mul", sum = op == "Add";
  if (x->kind == Kind::Mean && y->kind == Kind::Rows && product)
    return normed(y, x, false);
  if (x->kind == Kind::Rows && y->kind == Kind::Mean) {
    if (product || op == "Div")
      return normed(x, y, op == "Div");
    // Less its own mean.
    if (op == "Sub" && x->base() == y->a->base() && !y->function &&
        !y->meanOf && !x->function && !y->a->centered) {
      TermRef centered = with(*x, x->layout);
      centered->centered = true;
      centered->written = {};
      return centered;
    }
  }
  if (x->kind == Kind::TimesSide && y->kind == Kind::TimesSide && sum) {
    const bool first = x->a->kind == Kind::Turned;
    const TermRef &plain = first ? y : x, &turned = first ? x : y;
    if (turned->a->kind == Kind::Turned && plain->a->kind == Kind::Rows &&
        turned->a->a->base() == plain->a->base() &&
        turned->a->layout == plain->a->layout)
      return rotate(plain->a, plain->sides[0], turned->sides[0], {});
  }
  if (x->kind != Kind::Rows || y->kind != Kind::Rows)
    give("its operands are no rows");
  if (x->layout != y->layout)
    give("its operands stand in different orders");
  // Functions of the same number.
  if (x->base() == y->base() && x->centered == y->centered) {
    TermRef result = with(*x, x->layout);
    result->written = {};
    result->function = [f = x->function, g = y->function,
                        name = op.str()](double number) {
      return compute(name, valueAt(f, number), valueAt(g, number));
    };
    return result;
  }
  if (sum) {
    Value left = write(*x), right = write(*y);
    return rowsTerm(fm::AddOp::create(b, loc, left, right), x->layout);
  }
  if (!product)
    give("rows are added and multiplied only");
  // A gate: one of both is an activation.
  for (bool swapped : {false, true}) {
    Term &gate = swapped ? *y : *x, &up = swapped ? *x : *y;
    auto activation = gate.function && !gate.written
                          ? activationOf(gate.function)
                          : std::nullopt;
    if (!activation || activation->factor != 1 || gate.centered)
      continue;
    Value gateValue = baseOf(gate), upValue = write(up);
    return rowsTerm(fm::GluOp::create(b, loc, gateValue.getType(), gateValue,
                                      upValue, activation->function),
                    x->layout);
  }
  give("rows are multiplied, and neither of both is an activation");
}

/// x + the rows of a table that belong to the positions.
TermRef Raiser::positionEmbedding(const TermRef &term, Value side) {
  auto node = side.getDefiningOp<graph::NodeOp>();
  while (node && (node.getOp() == "Unsqueeze" || node.getOp() == "Cast" ||
                  node.getOp() == "Identity"))
    node = operand(node, 0).getDefiningOp<graph::NodeOp>();
  if (!node || node.getOp() != "Gather" || integer(node, "axis", 0) != 0 ||
      !isPlain(*term))
    give("adds what depends on positions and is no table's rows");
  auto table = weights.find(operand(node, 0));
  const int64_t width = featuresOf(*term);
  if (!table || table->shape.size() != 2 || table->shape[1] != width)
    give("adds what depends on positions and is no table's rows");
  std::optional<double> offset;
  for (Sample sample : {Sample{3, 0}, Sample{4, 5}, Sample{1, 9}}) {
    if (!hasPast)
      sample.past = 0;
    const Array positions = sides.evaluate(operand(node, 1), sample);
    if (int64_t(positions.values.size()) != sample.sequence)
      give("looks up other positions than those of the tokens");
    for (auto [i, position] : llvm::enumerate(positions.values)) {
      const double own = position - double(sample.past + int64_t(i));
      if (offset.value_or(own) != own || own < 0)
        give("looks up other positions than those of the tokens");
      offset = own;
    }
  }
  const auto first = int64_t(*offset);
  const int64_t count = table->shape[0] - first;
  context = std::min(context, count);
  Weight part = first ? table->rows(first, count) : *table;
  Value value = write(*term);
  return rowsTerm(fm::PositionEmbeddingOp::create(b, loc, value.getType(),
                                                  value, rowsArgument,
                                                  argumentFor(part)),
                  term->layout);
}

TermRef Raiser::withSide(graph::NodeOp node, StringRef op, const TermRef &term,
                         Value side, bool sideFirst) {
  if (auto number = sides.number(side))
    return withNumber(op, term, *number, sideFirst);
  if (term->kind == Kind::Scores && op == "Add") {
    TermRef result = with(*term, term->layout);
    result->sides.push_back(side);
    return result;
  }
  if (op == "Mul" && (term->kind == Kind::Normed || term->kind == Kind::Turned))
    return term->kind == Kind::Normed ? scaleNormed(term, side) : [&] {
      TermRef result = make(Kind::TimesSide, term->layout);
      result->a = term;
      result->sides = {side};
      return result;
    }();
  if (op == "Add" && term->kind == Kind::Scaled) {
    auto bias = weights.findVector(side, term->weight->shape[0]);
    if (!bias || !isPlain(*term->a))
      give("a norm's bias is no vector of constants");
    Term base = *term->a;
    base.centered = false;
    Value x = write(base);
    return rowsTerm(fm::LayerNormOp::create(
                        b, loc, x.getType(), x, argumentFor(*term->weight),
                        argumentFor(*bias), b.getF64FloatAttr(term->number)),
                    term->layout);
  }
  if (term->kind != Kind::Rows)
    give("its operand is no row");
  if (op == "Mul" && sides.level(side) == Sides::Level::Side) {
    TermRef result = make(Kind::TimesSide, term->layout);
    result->a = term;
    result->sides = {side};
    return result;
  }
  if (op != "Add")
    give("rows are changed by a vector that is not added");
  auto vector = weights.findVector(side, featuresOf(*term));
  if (!vector)
    return positionEmbedding(term, side);
  if (!isPlain(*term))
    give("adds a vector to heads");
  if (term->product && !term->product->made && !term->product->bias &&
      !term->function) {
    TermRef result = with(*term, term->layout);
    result->product = std::make_shared<Product>(*term->product);
    result->product->bias = vector;
    result->product->loc = node.getLoc();
    return result;
  }
  Value value = write(*term);
  return rowsTerm(fm::AddVectorOp::create(b, loc, value.getType(), value,
                                          argumentFor(*vector)),
                  term->layout);
}

TermRef Raiser::readBinary(graph::NodeOp node) {
  Value x = operand(node, 0), y = operand(node, 1);
  const StringRef op = node.getOp();
  if (sides.isData(x) && sides.isData(y))
    return combine(op, data(node, 0), data(node, 1));
  return sides.isData(x) ? withSide(node, op, data(node, 0), y, false)
                         : withSide(node, op, data(node, 1), x, true);
}

//===----------------------------------------------------------------------===//
// Norms
//===----------------------------------------------------------------------===//

TermRef Raiser::readMean(graph::NodeOp node) {
  TermRef term = data(node);
  std::vector<int64_t> axes;
  if (has(node, 1))
    axes = integers(operand(node, 1));
  if (term->kind != Kind::Rows || axes.size() != 1 ||
      axisOf(axes[0], term->layout.size()) + 1 != term->layout.size() ||
      integer(node, "keepdims", 1) != 1)
    give("a mean that is not over features");
  TermRef mean = make(Kind::Mean, term->layout);
  mean->layout.back() = {};
  mean->a = with(*term, term->layout);
  mean->meanOf = term->function;
  return mean;
}

/// Rows times (or divided by) a function of the mean of their squares.
TermRef Raiser::normed(const TermRef &rows, const TermRef &mean, bool divided) {
  const Term &measured = *mean->a;
  if (rows->base() != measured.base() || rows->layout != measured.layout ||
      rows->centered != measured.centered ||
      !isSquareOf(mean->meanOf, rows->function))
    give("rows are scaled by a mean that is not that of their squares");
  Function scale = mean->function;
  if (divided)
    scale = after(scale, [](double x) { return 1 / x; });
  auto epsilon = epsilonOf(scale);
  if (!epsilon)
    give("rows are scaled by something else than the root of their mean "
         "square");
  TermRef result = make(Kind::Normed, rows->layout);
  result->a = rows;
  result->number = *epsilon;
  return result;
}

TermRef Raiser::scaleNormed(const TermRef &term, Value side) {
  const Dimension last = joined(term->layout.back());
  if (last.size() != 1 || last[0].kind != Factor::Feature ||
      last[0].stride != 1)
    give("a norm over something else than features");
  auto weight = weights.findVector(side, last[0].size);
  if (!weight)
    give("a norm's weight is no vector of constants");
  if (term->a->centered) {
    TermRef result = make(Kind::Scaled, term->layout);
    result->a = term->a;
    result->number = term->number;
    result->weight = weight;
    return result;
  }
  Value x = write(*term->a);
  return rowsTerm(fm::RMSNormOp::create(
                      b, loc, x.getType(), x, argumentFor(*weight),
                      b.getF64FloatAttr(term->number),
                      b.getI64IntegerAttr(featuresOf(*term->a) / last[0].size)),
                  term->layout);
}

/// RMSNormalization and LayerNormalization.
TermRef Raiser::readNorm(graph::NodeOp node) {
  TermRef term = data(node);
  if (term->kind != Kind::Rows ||
      axisOf(integer(node, "axis", -1), term->layout.size()) + 1 !=
          term->layout.size())
    give("a norm over something else than features");
  if (node.getOp() == "RMSNormalization") {
    TermRef normed = make(Kind::Normed, term->layout);
    normed->a = term;
    normed->number = real(node, "epsilon", 1e-5);
    return scaleNormed(normed, operand(node, 1));
  }
  if (!isPlain(*term) || !has(node, 2))
    give("a layer norm of heads, or without a bias");
  const int64_t width = featuresOf(*term);
  auto weight = weights.findVector(operand(node, 1), width),
       bias = weights.findVector(operand(node, 2), width);
  if (!weight || !bias)
    give("a norm's weights are no constants");
  Value x = write(*term);
  return rowsTerm(
      fm::LayerNormOp::create(b, loc, x.getType(), x, argumentFor(*weight),
                              argumentFor(*bias),
                              b.getF64FloatAttr(real(node, "epsilon", 1e-5))),
      term->layout);
}
