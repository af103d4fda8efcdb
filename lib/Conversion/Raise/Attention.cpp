//===- Attention.cpp - products and attention -----------------------------===//
#include "Raiser.h"

#include <cmath>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::raise;

//===----------------------------------------------------------------------===//
// Products with weights
//===----------------------------------------------------------------------===//

TermRef Raiser::multiply(const TermRef &x, const Weight &weight) {
  if (!isPlain(*x) || weight.shape.size() != 2 ||
      weight.shape[1] != featuresOf(*x))
    give("multiplies something else than rows by a matrix");
  Layout layout = x->layout;
  layout.back() = {features(weight.shape[0])};
  TermRef result = make(Kind::Rows, layout);
  result->product =
      std::make_shared<Product>(Product{write(*x), weight, {}, loc, {}});
  return result;
}

TermRef Raiser::readGemm(graph::NodeOp node) {
  TermRef x = data(node);
  auto weight = weights.find(operand(node, 1));
  if (!weight || weight->shape.size() != 2 || integer(node, "transA", 0) ||
      real(node, "alpha", 1) != 1 || real(node, "beta", 1) != 1)
    give("multiplies something else than rows by a matrix");
  TermRef result =
      multiply(x, integer(node, "transB", 0) ? *weight : weight->transpose());
  if (!has(node, 2))
    return result;
  return withSide(node, "Add", result, operand(node, 2), false);
}

TermRef Raiser::readMatMul(graph::NodeOp node) {
  Value right = operand(node, 1);
  TermRef x = data(node);
  if (!sides.isData(right)) {
    auto weight = weights.find(right);
    if (!weight || weight->shape.size() != 2)
      give("multiplies by something else than a matrix of constants");
    return multiply(x, weight->transpose());
  }
  TermRef y = data(node, 1);
  if (x->kind == Kind::Probabilities)
    return attend(x, y);
  // Queries by keys.
  if (x->kind != Kind::Rows || x->layout.size() < 3 ||
      (y->kind != Kind::Rows && y->kind != Kind::Cached) ||
      y->layout.size() != x->layout.size())
    give("multiplies rows by rows, and they are no queries and keys");
  TermRef scores = make(Kind::Scores);
  scores->a = x;
  scores->b = with(*y, y->layout);
  // As values stand.
  std::swap(scores->b->layout[y->layout.size() - 1],
            scores->b->layout[y->layout.size() - 2]);
  scores->number = 1;
  return scores;
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// The features of rows as heads, the heads before the tokens.
TermRef Raiser::heads(const TermRef &term, int64_t count) {
  if (term->layout.size() != 3)
    return term;
  Layout layout = term->layout;
  const Dimension last = joined(layout.back());
  if (count <= 0 || last.size() != 1 || last[0].size % count != 0)
    give("features are not whole heads");
  const int64_t size = last[0].size / count;
  layout.back() = {features(size)};
  layout.insert(layout.begin() + 1, {features(count, size)});
  return with(*term, layout);
}

TermRef Raiser::cached(const TermRef &past, const TermRef &added, size_t axis) {
  if (past->kind != Kind::Past || added->kind != Kind::Rows ||
      added->layout[axis] != Dimension{{Factor::Sequence}} ||
      past->pastSizes.size() != added->layout.size())
    give("joins a cache and something else than keys or values");
  const std::vector<int64_t> sizes =
      raise::sizesOf(added->layout, Sides::kSample);
  for (size_t d = 0; d < sizes.size(); ++d)
    if (d != axis && sizes[d] != past->pastSizes[d])
      give("keys or values do not have the sizes of their cache");
  TermRef result = make(Kind::Cached, added->layout);
  result->layout[axis] = {{Factor::Total}};
  result->a = added;
  result->argument = past->argument;
  result->number = 1;
  return result;
}

/// Whether a value is the positions before the step, or those with it.
bool Raiser::isPast(Value value, bool total) {
  for (Sample sample : {Sides::kSample, Sample{3, 5}, Sample{1, 0}})
    for (double length : sides.evaluate(value, sample).values)
      if (length != double(total ? sample.total() : sample.past))
        return false;
  return true;
}

/// What is new is written into a cache of a fixed size, at its end.
TermRef Raiser::readScatter(graph::NodeOp node) {
  TermRef past = data(node), added = data(node, 1);
  const size_t axis = axisOf(integer(node, "axis", -2), added->layout.size());
  auto mode = node.getOnnxAttributes().getAs<StringAttr>("mode");
  if ((mode && mode.getValue() != "linear") || !has(node, 2) ||
      sides.isData(operand(node, 2)) || !isPast(operand(node, 2), false))
    give("writes elsewhere than at the end of the cache");
  TermRef result = cached(past, added, axis);
  if (const int64_t size = past->pastSizes[axis]; size > 0)
    context = std::min(context, size);
  return result;
}

int64_t Raiser::windowOf(const std::vector<Value> &masks, bool causal) {
  if (masks.empty()) {
    if (!causal)
      give("attention to what comes later");
    return 0;
  }
  std::vector<Array> arrays;
  auto evaluate = [&](const Sample &sample) {
    arrays.clear();
    for (Value mask : masks)
      arrays.push_back(sides.evaluate(mask, sample));
  };
  auto sees = [&](const Sample &sample, int64_t row, int64_t position) {
    bool seen = !causal || position <= sample.past + row;
    for (auto [mask, array] : llvm::zip(masks, arrays)) {
      const std::vector<int64_t> &sizes = array.sizes;
      const size_t rank = sizes.size();
      const int64_t width = rank > 0 ? sizes[rank - 1] : 1,
                    height = rank > 1 ? sizes[rank - 2] : 1;
      if ((width != 1 && width != sample.total()) ||
          (height != 1 && height != sample.sequence) ||
          int64_t(array.values.size()) != width * height)
        give("a mask that is not the same for all heads");
      const double value = array.values[size_t((height == 1 ? 0 : row) * width +
                                               (width == 1 ? 0 : position))];
      if (cast<RankedTensorType>(mask.getType())
              .getElementType()
              .isInteger(1)) {
        seen &= value != 0;
        continue;
      }
      // What is added to scores.
      if (value != 0 && !(value <= -1e4))
        give("adds a bias to scores");
      seen &= value == 0;
    }
    return seen;
  };
  // How far back the last of many positions sees.
  const int64_t longest = hasPast ? context : std::min<int64_t>(context, 2048);
  const Sample far = hasPast ? Sample{1, longest - 1} : Sample{longest, 0};
  evaluate(far);
  int64_t visible = 0;
  for (int64_t position = 0; position < longest; ++position)
    visible += sees(far, far.sequence - 1, position);
  const int64_t window = visible == longest ? 0 : visible;
  std::vector<Sample> samples = {{1, 0}, {5, 0}, {9, 0}};
  if (hasPast)
    for (int64_t past : {int64_t(1), int64_t(4), window, window + 3})
      samples.push_back({3, past});
  else
    context = longest;
  samples.push_back(far);
  for (const Sample &sample : samples) {
    evaluate(sample);
    for (int64_t row = 0; row < sample.sequence; ++row)
      for (int64_t position = 0; position < sample.total(); ++position) {
        const int64_t own = sample.past + row;
        const bool expected =
            position <= own && (!window || position > own - window);
        if (sees(sample, row, position) != expected)
          give(fmt::format(
              "with {} tokens after {}, token {} {} position {}: neither all "
              "positions up to its own nor a window of them",
              sample.sequence, sample.past, row,
              expected ? "does not see" : "sees", position));
      }
  }
  return window;
}

TermRef Raiser::readSoftmax(graph::NodeOp node) {
  TermRef scores = data(node);
  if (scores->kind != Kind::Scores ||
      axisOf(integer(node, "axis", -1), scores->a->layout.size()) + 1 !=
          scores->a->layout.size())
    give("a softmax of something else than scores");
  TermRef result = with(*scores, {});
  result->kind = Kind::Probabilities;
  return result;
}

/// A mask of scores; or zero where probabilities are none, in rows that see
/// nothing.
TermRef Raiser::readWhere(graph::NodeOp node) {
  Value condition = operand(node, 0);
  if (sides.isData(condition)) {
    TermRef nans = data(node, 0), otherwise = data(node, 2);
    if (nans->kind != Kind::NaNs || otherwise->kind != Kind::Probabilities)
      give("depends on what tokens are");
    return otherwise;
  }
  TermRef scores = data(node, 1);
  auto number = sides.number(operand(node, 2));
  if (scores->kind != Kind::Scores || !number || *number > -1e4)
    give("picks from something else than scores");
  TermRef result = with(*scores, {});
  result->sides.push_back(condition);
  return result;
}

TermRef Raiser::attend(const TermRef &scores, const TermRef &values) {
  const TermRef &q = scores->a, &k = scores->b;
  const size_t rank = q->layout.size();
  if (rank < 2)
    give("attention over something else than heads");
  auto check = [&](const TermRef &term, Factor::Kind time) {
    if (term->layout.size() != rank)
      give("queries, keys and values of different ranks");
    auto at = find(term->layout, time);
    const Dimension last = joined(term->layout.back());
    if (!at || *at != rank - 2 || last.size() != 1 ||
        last[0].kind != Factor::Feature || last[0].stride != 1)
      give("attention over something else than heads");
    return last[0].size;
  };
  const bool fromCache = k->kind == Kind::Cached;
  const Factor::Kind time = fromCache ? Factor::Total : Factor::Sequence;
  if (values->kind != k->kind || fromCache != hasPast)
    give("keys and values that are not both cached");
  const int64_t size = check(q, Factor::Sequence);
  if (check(k, time) != size || check(values, time) != size)
    give("keys and values of another size than queries");
  const Dimension queryHeads = featuresBut(q->layout, rank - 1);
  if (queryHeads.size() > 1 ||
      (queryHeads.size() == 1 && queryHeads[0].stride != size))
    give("heads of queries are not in order");
  const int64_t count = queryHeads.empty() ? 1 : queryHeads[0].size;
  const Dimension keyHeads = featuresBut(k->layout, rank - 1);
  int64_t kvCount = 1, repeats = 1;
  for (const Factor &factor : keyHeads) {
    // Whole groups of queries after each other read one head.
    if (factor.stride == 0)
      repeats *= factor.size;
    else if (factor.stride == size && repeats == 1)
      kvCount *= factor.size;
    else
      give("heads of keys are not in order");
  }
  // Attention may leave repeating to the operator.
  if (featuresBut(values->layout, rank - 1) != keyHeads ||
      (kvCount * repeats != count && (repeats != 1 || count % kvCount != 0)))
    give("heads of keys and values do not fit those of queries");
  auto added = [&](const TermRef &term) { return fromCache ? term->a : term; };
  auto factorOfRows = [&](const TermRef &term) {
    auto factor = factorOf(term->function);
    if (!factor)
      give("queries and keys that are no product");
    return *factor;
  };
  double scale = scores->number * factorOfRows(q) * factorOfRows(added(k));
  if (fromCache) {
    scale *= k->number;
    if (values->number != 1)
      give("values that are scaled after they were cached");
    for (unsigned argument : {k->argument, values->argument})
      if (usedPasts[argument]++)
        give("a cache that two layers share");
  } else {
    usedPasts[~0u] = 1; // attention without a cache
  }
  const int64_t window = windowOf(scores->sides, scores->causal);
  Value query = baseOf(*q), key = baseOf(*added(k)),
        value = write(*added(values));
  if (fm::getFeatures(key.getType()) != kvCount * size ||
      fm::getFeatures(value.getType()) != kvCount * size)
    give("keys and values that are a part of something");
  Value state = flat.addArgument(fm::StateType::get(b.getContext()), loc);
  flatWeights.emplace_back();
  auto op = fm::AttentionOp::create(
      b, loc, query.getType(), query, key, value, rowsArgument, state,
      b.getI64IntegerAttr(count), b.getI64IntegerAttr(kvCount),
      b.getF64FloatAttr(scale), window ? b.getI64IntegerAttr(0) : nullptr,
      window ? b.getI64IntegerAttr(window) : nullptr, nullptr);
  return rowsTerm(op, q->layout);
}

/// The standard's operator: heads may stand in the features, and the cache is
/// joined inside.
TermRef Raiser::readAttention(graph::NodeOp node, unsigned result) {
  TermRef k = data(node, 1), v = data(node, 2);
  const int64_t kvHeads = integer(node, "kv_num_heads", 0);
  const bool joins = has(node, 4);
  auto keysOrValues = [&](const TermRef &term, unsigned past) {
    TermRef split = heads(term, kvHeads);
    if (joins && split->layout.size() != 4)
      give("a cache of something else than heads");
    return joins ? cached(data(node, past), split, 2) : split;
  };
  if (result == 1 || result == 2) {
    if (!joins)
      give("a cache that does not come in");
    return result == 1 ? keysOrValues(k, 4) : keysOrValues(v, 5);
  }
  if (result > 2 || real(node, "softcap", 0) != 0)
    give("scores that are capped, or a result");
  const bool counted = has(node, 6);
  if (counted &&
      (sides.isData(operand(node, 6)) || !isPast(operand(node, 6), true)))
    give("attention to something else than all positions so far");
  TermRef q = data(node);
  const Layout layout = q->layout;
  q = heads(q, integer(node, "q_num_heads", 0));
  if (q->layout.empty())
    give("attention over something else than heads");
  TermRef scores = make(Kind::Probabilities);
  scores->a = q;
  scores->b = keysOrValues(k, 4);
  const Dimension last = joined(q->layout.back());
  if (last.size() != 1 || last[0].kind != Factor::Feature)
    give("attention over something else than heads");
  scores->number = real(node, "scale", 1 / std::sqrt(double(last[0].size)));
  scores->causal = integer(node, "is_causal", 0) != 0;
  if (scores->causal && !joins && !counted && hasPast)
    give("attention that is causal from the first position on, whatever is in "
         "the cache");
  if (has(node, 3))
    scores->sides.push_back(operand(node, 3));
  return with(*attend(scores, keysOrValues(v, 5)), layout);
}
