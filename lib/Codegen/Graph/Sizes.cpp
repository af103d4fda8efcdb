//===- Sizes.cpp - operators on sizes, and what follows from sizes alone --===//
#include "isthmus/Codegen/Graph/Operators.h"

#include "mlir/IR/BuiltinAttributes.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;

namespace {
using State = ArrayRef<Scalar>;

void shapeReshape(NodeBuilder &n) {
  const bool allowZero = n.integer("allowzero", 0);
  const size_t rank = n.rank(n.out());
  n.require(n.count(1) == double(rank), rt::kGraphSizes);
  Scalars result;
  Scalar knownCount = n.index(1);
  for (size_t d = 0; d < rank; ++d) {
    Scalar size = n.integerAt(1, d);
    if (!allowZero && d < n.rank(0))
      size = select(size == 0, n.size(0, d), size);
    result.push_back(size);
    knownCount = knownCount * select(size == -1, n.index(1), size);
  }
  for (Scalar &size : result)
    size = select(size == -1, n.count(0) / max(knownCount, 1), size);
  shapeOf(n, 0, result);
}

void shapeFlatten(NodeBuilder &n) {
  const int64_t given = n.integer("axis", 1);
  // It may be the rank: all dimensions are rows then.
  const auto rank = int64_t(n.rank(0));
  const size_t axis = given == rank ? n.rank(0) : n.axis(given, n.rank(0));
  Scalar rows = n.index(1), columns = n.index(1);
  for (size_t d = 0; d < n.rank(0); ++d)
    (d < axis ? rows : columns) = (d < axis ? rows : columns) * n.size(0, d);
  shapeOf(n, 0, {rows, columns});
}

void shapeUnsqueeze(NodeBuilder &n) {
  Scalars fresh = namedAxes(n, 1, n.rank(n.out())), result;
  Scalar place = n.index(0);
  for (size_t d = 0; d < fresh.size(); ++d) {
    Scalar size = n.index(1);
    for (size_t j = 0; j < n.rank(0); ++j)
      size = select(!fresh[d] & (place == double(j)), n.size(0, j), size);
    result.push_back(size);
    place = place + select(fresh[d], n.index(0), n.index(1));
  }
  n.require(place == double(n.rank(0)), rt::kGraphValue);
  shapeOf(n, 0, result);
}

void shapeSqueeze(NodeBuilder &n) {
  Scalars gone;
  if (n.has(1))
    gone = namedAxes(n, 1, n.rank(0));
  else
    for (Scalar size : n.sizes(0))
      gone.push_back(size == 1);
  Scalars result(n.rank(n.out()), n.index(1));
  Scalar place = n.index(0);
  for (size_t d = 0; d < gone.size(); ++d) {
    n.require(!gone[d] | (n.size(0, d) == 1), rt::kGraphSizes);
    for (size_t j = 0; j < result.size(); ++j)
      result[j] =
          select(!gone[d] & (place == double(j)), n.size(0, d), result[j]);
    place = place + select(gone[d], n.index(0), n.index(1));
  }
  n.require(place == double(result.size()), rt::kGraphSizes);
  shapeOf(n, 0, result);
}

/// [first, last) of the dimensions that Shape gives.
std::pair<size_t, size_t> shapeRange(NodeBuilder &n) {
  const auto rank = int64_t(n.rank(0));
  auto clamp = [&](int64_t axis) {
    return size_t(std::clamp(axis < 0 ? axis + rank : axis, int64_t(0), rank));
  };
  const size_t first = clamp(n.integer("start", 0));
  return {first, std::max(first, clamp(n.integer("end", rank)))};
}

void shapeShape(NodeBuilder &n) {
  auto [first, last] = shapeRange(n);
  shapeOf(n, 0, {n.index(int64_t(last - first))});
}

void computeShape(NodeBuilder &n) {
  auto [first, last] = shapeRange(n);
  for (size_t d = first; d < last; ++d)
    n.store(n.out(), n.index(int64_t(d - first)), n.size(0, d));
}

void shapeSize(NodeBuilder &n) { shapeOf(n, 0, {}); }
void computeSize(NodeBuilder &n) { n.store(n.out(), n.index(0), n.count(0)); }

/// The first element of an attribute that is a tensor.
Scalar elementOf(NodeBuilder &n, StringRef name, DataType type) {
  auto value = n.spec.attributes.getAs<DenseElementsAttr>(name);
  if (!value || value.empty())
    return n.constant(type, 0);
  if (isa<FloatType>(value.getElementType()))
    return n.constant(type,
                      (*value.getValues<APFloat>().begin()).convertToDouble());
  APInt bits = *value.getValues<APInt>().begin();
  return n.integerConstant(type, isSigned(type) ? bits.getSExtValue()
                                                : int64_t(bits.getZExtValue()));
}

void shapeConstantOfShape(NodeBuilder &n) {
  Scalars result;
  n.require(n.count(0) == double(n.rank(n.out())), rt::kGraphSizes);
  for (size_t d = 0; d < n.rank(n.out()); ++d)
    result.push_back(n.integerAt(0, d));
  shapeOf(n, 0, result);
}

void computeConstantOfShape(NodeBuilder &n) {
  Scalar value = elementOf(n, "value", n.operand(n.out()).type);
  n.gather([&](State) { return value; });
}

void shapeExpand(NodeBuilder &n) {
  const size_t rank = n.rank(n.out());
  Scalars asked;
  // Of the length of input 1 only the rank of the result is known here.
  const size_t length =
      n.operand(1).sizes[0] >= 0 ? size_t(n.operand(1).sizes[0]) : rank;
  n.require(n.count(1) == double(length), rt::kGraphSizes);
  for (size_t d = 0; d < length; ++d)
    asked.push_back(n.integerAt(1, d));
  shapeOf(n, 0, n.broadcastSizes({n.sizes(0), asked}));
}

void computeExpand(NodeBuilder &n) {
  const size_t skip = n.rank(n.out()) - n.rank(0);
  n.gather([&](State at) {
    Scalars from;
    for (size_t d = 0; d < n.rank(0); ++d)
      from.push_back(select(n.size(0, d) == 1, n.index(0), at[d + skip]));
    return n.load(0, from);
  });
}

void shapeRangeOf(NodeBuilder &n) {
  Scalar start = n.scalarInput(0), limit = n.scalarInput(1),
         delta = n.scalarInput(2);
  n.require(delta != 0, rt::kGraphValue);
  Scalar steps;
  if (isFloat(start.type)) {
    auto wide = [&](Scalar x) { return n.convert(x, DataType::F64); };
    steps = n.convert(ceilOf((wide(limit) - wide(start)) / wide(delta)),
                      DataType::I64);
  } else {
    auto wide = [&](Scalar x) { return n.convert(x, DataType::I64); };
    Scalar span = wide(limit) - wide(start), step = wide(delta);
    steps = span / step;
    // Up, where it goes the right way and a rest is left.
    steps = select((span - steps * step != 0) & ((span > 0) ^ (step < 0)),
                   steps + 1, steps);
  }
  shapeOf(n, 0, {max(steps, 0)});
}

void computeRange(NodeBuilder &n) {
  Scalar start = n.scalarInput(0), delta = n.scalarInput(2);
  n.gather(
      [&](State at) { return start + n.convert(at[0], start.type) * delta; });
}

void computeEyeLike(NodeBuilder &n) {
  const auto offset = double(n.integer("k", 0));
  const DataType type = n.operand(n.out()).type;
  n.gather([&](State at) {
    return select(at[1] == at[0] + offset, n.constant(type, 1),
                  n.constant(type, 0));
  });
}

void shapeOneHot(NodeBuilder &n) {
  Scalars result = n.sizes(0);
  const size_t axis = n.axis(n.integer("axis", -1), n.rank(n.out()));
  result.insert(result.begin() + ptrdiff_t(axis), n.integerAt(1, 0));
  shapeOf(n, 0, result);
}

void computeOneHot(NodeBuilder &n) {
  const size_t axis = n.axis(n.integer("axis", -1), n.rank(n.out()));
  Scalar depth = n.integerAt(1, 0);
  Scalar off = n.elementAt(2, 0), on = n.elementAt(2, 1);
  n.gather([&](State at) {
    Scalars from(at.begin(), at.end());
    from.erase(from.begin() + ptrdiff_t(axis));
    Scalar wanted = n.convert(n.load(0, from), DataType::I64);
    wanted = select(wanted < 0, wanted + depth, wanted);
    return select(wanted == at[axis], on, off);
  });
}

constexpr Operator kTable[] = {
    {"Identity", shapeBroadcast, nullptr},
    {"Reshape", shapeReshape, nullptr},
    {"Flatten", shapeFlatten, nullptr},
    {"Unsqueeze", shapeUnsqueeze, nullptr},
    {"Squeeze", shapeSqueeze, nullptr},
    {"Shape", shapeShape, computeShape},
    {"Size", shapeSize, computeSize},
    {"ConstantOfShape", shapeConstantOfShape, computeConstantOfShape},
    {"Expand", shapeExpand, computeExpand},
    {"Range", shapeRangeOf, computeRange},
    {"EyeLike", shapeAsInput, computeEyeLike},
    {"OneHot", shapeOneHot, computeOneHot},
};
} // namespace

OperatorTable isthmus::sizeOperators() { return kTable; }
