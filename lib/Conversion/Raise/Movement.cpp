//===- Movement.cpp - operators that move elements, read as layouts -------===//
#include "Raiser.h"

using namespace mlir;
using namespace isthmus;
using namespace isthmus::raise;

TermRef Raiser::readReshape(graph::NodeOp node) {
  TermRef term = data(node);
  const Layout &layout = term->layout;
  const StringRef op = node.getOp();
  if (term->kind == Kind::Past || term->kind == Kind::Mean ||
      term->kind == Kind::Scores || term->kind == Kind::Probabilities)
    give("its operand has no rows whose shape can change");
  if (op == "Unsqueeze") {
    Layout result = layout;
    std::vector<int64_t> axes = integers(operand(node, 1));
    for (int64_t &axis : axes)
      axis = int64_t(axisOf(axis, layout.size() + axes.size()));
    llvm::sort(axes);
    for (int64_t axis : axes)
      result.insert(result.begin() + axis, Dimension());
    return with(*term, result);
  }
  if (op == "Squeeze") {
    Layout result;
    std::vector<bool> squeezed(layout.size(), !has(node, 1));
    if (has(node, 1))
      for (int64_t axis : integers(operand(node, 1)))
        squeezed[axisOf(axis, layout.size())] = true;
    for (auto [d, dimension] : llvm::enumerate(layout))
      if (!squeezed[d] || (!has(node, 1) && !dimension.empty()))
        result.push_back(dimension);
      else if (!dimension.empty())
        give("takes away a dimension that is not one");
    return with(*term, result);
  }
  std::vector<int64_t> sizes;
  const std::vector<int64_t> own = raise::sizesOf(layout, Sides::kSample);
  if (op == "Flatten") {
    const int64_t axis = integer(node, "axis", 1);
    const auto at = size_t(axis < 0 ? axis + int64_t(own.size()) : axis);
    int64_t outer = 1;
    for (size_t d = 0; d < std::min(at, own.size()); ++d)
      outer *= own[d];
    sizes = {outer, -1};
  } else {
    sizes = integers(operand(node, 1));
    if (!integer(node, "allowzero", 0))
      for (auto [d, size] : llvm::enumerate(sizes))
        if (size == 0 && d < own.size())
          size = own[d];
  }
  auto result = reshape(layout, sizes, Sides::kSample);
  if (!result)
    give("mixes rows and features");
  return with(*term, *result);
}

TermRef Raiser::readTranspose(graph::NodeOp node) {
  TermRef term = data(node);
  if (term->kind == Kind::Past)
    give("turns the cache");
  auto order = node.getOnnxAttributes().getAs<DenseI64ArrayAttr>("perm");
  Layout result;
  const size_t rank = term->layout.size();
  if (order && size_t(order.size()) != rank)
    give("an order of other dimensions than its operand has");
  for (size_t d = 0; d < rank; ++d)
    result.push_back(
        term->layout[order ? axisOf(order[d], rank) : rank - 1 - d]);
  return with(*term, result);
}

/// Dimensions of one are repeated: heads of keys and values, for groups of
/// queries.
TermRef Raiser::readExpand(graph::NodeOp node) {
  TermRef term = data(node);
  const std::vector<int64_t> sizes = integers(operand(node, 1));
  Layout layout = term->layout;
  while (layout.size() < sizes.size())
    layout.insert(layout.begin(), Dimension());
  const size_t added = layout.size() - sizes.size();
  const std::vector<int64_t> own = raise::sizesOf(layout, Sides::kSample);
  for (size_t d = 0; d < sizes.size(); ++d) {
    const int64_t size = sizes[d], has = own[d + added];
    if (size == 1 || size == has)
      continue;
    if (has != 1)
      give("repeats a dimension that is not one");
    layout[d + added] = {features(size, 0)};
  }
  return with(*term, layout);
}

/// Some of the features in a dimension.
TermRef Raiser::partOf(const TermRef &term, size_t axis, int64_t first,
                       int64_t count) {
  const Dimension dimension = joined(term->layout[axis]);
  if (dimension.size() != 1 || dimension[0].kind != Factor::Feature)
    give("takes a part of something else than features");
  const int64_t size = dimension[0].size;
  if (first == 0 && count == size)
    return term;
  if (first < 0 || count <= 0 || first + count > size)
    give("takes features that there are not");
  if (term->kind == Kind::Rows && isPlain(*term) && term->product &&
      !term->product->made && axis + 1 == term->layout.size()) {
    const Product &whole = *term->product;
    TermRef part = with(*term, term->layout);
    part->layout[axis] = {features(count)};
    part->written = {};
    part->product = std::make_shared<Product>(Product{
        whole.x, whole.weight.rows(first, count), whole.bias, whole.loc, {}});
    if (whole.bias)
      part->product->bias = whole.bias->rows(first, count);
    // A half of one head, perhaps.
    part->a = 2 * count == size ? term : nullptr;
    part->second = first > 0;
    return part;
  }
  // Halves of heads, for rotary embedding.
  if (term->kind != Kind::Rows || 2 * count != size || first % count != 0 ||
      axis + 1 != term->layout.size() || dimension[0].stride != 1)
    give("takes features that are neither outputs of a product nor halves of "
         "heads");
  Layout layout = term->layout;
  layout[axis] = {features(count)};
  TermRef half = make(Kind::Half, layout);
  half->a = term;
  half->second = first > 0;
  return half;
}

/// The last token's row alone.
TermRef Raiser::lastRow(const TermRef &term, size_t axis, bool keeps) {
  if (!isPlain(*term))
    give("takes a row of something else than rows");
  Layout layout = term->layout;
  if (keeps)
    layout[axis] = {};
  else
    layout.erase(layout.begin() + ptrdiff_t(axis));
  Value value = write(*term);
  return rowsTerm(
      fm::SelectRowsOp::create(b, loc, value.getType(), value, rowsArgument),
      layout);
}

TermRef Raiser::readSlice(graph::NodeOp node) {
  TermRef term = data(node);
  if (term->kind == Kind::Past)
    give("takes a part of the cache");
  const size_t rank = term->layout.size();
  const std::vector<int64_t> starts = integers(operand(node, 1)),
                             ends = integers(operand(node, 2));
  std::vector<int64_t> axes, steps(starts.size(), 1);
  if (has(node, 3))
    axes = integers(operand(node, 3));
  else
    for (size_t d = 0; d < starts.size(); ++d)
      axes.push_back(int64_t(d));
  if (has(node, 4))
    steps = integers(operand(node, 4));
  for (size_t i = 0; i < starts.size(); ++i) {
    const size_t axis = axisOf(axes.at(i), rank);
    const int64_t size = raise::sizesOf(term->layout, Sides::kSample)[axis];
    auto bound = [&](int64_t at) {
      return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
    };
    const int64_t first = bound(starts[i]), last = bound(ends.at(i));
    if (steps.at(i) != 1)
      give("takes every other element");
    if (first == 0 && last == size)
      continue;
    const bool sequence = term->layout[axis] == Dimension{{Factor::Sequence}};
    if (sequence && first == size - 1 && last == size &&
        sides.constant(operand(node, 1)).values[i] == -1)
      term = lastRow(term, axis, true);
    else
      term = partOf(term, axis, first, last - first);
  }
  return term;
}

TermRef Raiser::readSplit(graph::NodeOp node, unsigned result) {
  TermRef term = data(node);
  const size_t axis = axisOf(integer(node, "axis", 0), term->layout.size());
  const int64_t size = raise::sizesOf(term->layout, Sides::kSample)[axis];
  std::vector<int64_t> sizes;
  if (has(node, 1)) {
    sizes = integers(operand(node, 1));
  } else {
    const auto parts = int64_t(node.getOutputs().size());
    sizes.assign(size_t(parts), (size + parts - 1) / parts);
  }
  int64_t first = 0;
  for (unsigned i = 0; i < result; ++i)
    first += sizes.at(i);
  return partOf(term, axis, first, std::min(sizes.at(result), size - first));
}

TermRef Raiser::readGather(graph::NodeOp node) {
  Value from = operand(node, 0), indices = operand(node, 1);
  if (!sides.isData(from)) {
    TermRef term = data(node, 1);
    auto table = weights.find(from);
    if (!table || table->shape.size() != 2 || term->kind != Kind::Ids ||
        integer(node, "axis", 0) != 0)
      give("looks up something else than token ids in a table");
    vocabulary = std::max(vocabulary, table->shape[0]);
    Layout layout = term->layout;
    layout.push_back({features(table->shape[1])});
    return rowsTerm(fm::EmbeddingOp::create(b, loc, rowsType(table->shape[1]),
                                            ids, argumentFor(*table)),
                    layout);
  }
  TermRef term = data(node);
  const size_t axis = axisOf(integer(node, "axis", 0), term->layout.size());
  if (term->kind != Kind::Rows ||
      term->layout[axis] != Dimension{{Factor::Sequence}} ||
      sides.isData(indices))
    give("picks something else than a row");
  for (Sample sample : {Sides::kSample, Sample{3, 5}, Sample{1, 0}}) {
    const Array index = sides.evaluate(indices, sample);
    if (index.values.size() != 1 ||
        (index.values[0] != -1 &&
         index.values[0] != double(sample.sequence - 1)))
      give("picks a row that is not the last");
  }
  return lastRow(term, axis,
                 cast<RankedTensorType>(indices.getType()).getRank() > 0);
}

TermRef Raiser::readConcat(graph::NodeOp node) {
  const auto count = node.getInputs().size();
  if (count == 1)
    return data(node);
  TermRef x = data(node, 0), y = data(node, 1);
  if (count != 2)
    give("joins more than two");
  if (x->kind == Kind::Past)
    return cached(x, y, axisOf(integer(node, "axis", 0), y->layout.size()));
  const size_t axis = axisOf(integer(node, "axis", 0), x->layout.size());
  // Halves of heads, exchanged.
  auto isHalf = [](const TermRef &term) {
    return term->a && (term->kind == Kind::Half || term->kind == Kind::Rows);
  };
  if (!isHalf(x) || !isHalf(y) || !x->second || y->second ||
      x->a->base() != y->a->base() || x->a->layout != y->a->layout ||
      axis + 1 != x->layout.size() || factorOf(x->function) != -1.0 ||
      y->function)
    give("joins something else than a cache and what is new, or halves of "
         "heads");
  TermRef turned = make(Kind::Turned, x->a->layout);
  turned->a = x->a;
  return turned;
}
