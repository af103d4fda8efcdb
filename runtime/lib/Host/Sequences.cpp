//===- Sequences.cpp - sequences and optionals ----------------------------===//
#include "Operators.h"
#include "Pieces.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>

using namespace isthmus::rt;
using Items = std::vector<Value>;

static Value toSequence(Items items) {
  return Value::Sequence(std::make_shared<const Items>(std::move(items)));
}

/// The place that input `index` says, among `size` + `more`; otherwise the
/// last.
static size_t position(const HostCall &call, size_t index, size_t size,
                       size_t more) {
  if (!call.has(index))
    return size + more - 1;
  return normalAxis(integerAt(call.tensor(index), 0), size + more);
}

static void construct(HostCall &call) {
  call.outputs[0] = toSequence(call.inputs);
}

static void makeEmpty(HostCall &call) { call.outputs[0] = toSequence({}); }

static void insert(HostCall &call) {
  Items items = call.inputs[0].needSequence();
  items.insert(items.begin() + ptrdiff_t(position(call, 2, items.size(), 1)),
               call.inputs[1]);
  call.outputs[0] = toSequence(std::move(items));
}

static void erase(HostCall &call) {
  Items items = call.inputs[0].needSequence();
  items.erase(items.begin() + ptrdiff_t(position(call, 1, items.size(), 0)));
  call.outputs[0] = toSequence(std::move(items));
}

static void at(HostCall &call) {
  const Items &items = call.inputs[0].needSequence();
  call.outputs[0] = items[position(call, 1, items.size(), 0)];
}

static void length(HostCall &call) {
  call.outputs[0] = scalar(int64_t(call.inputs[0].needSequence().size()));
}

static void split(HostCall &call) {
  const Tensor &input = call.tensor(0);
  const size_t axis = normalAxis(call.integer("axis", 0), input.sizes.size());
  const int64_t size = input.sizes[axis];
  std::vector<int64_t> lengths;
  const bool each = !call.has(1);
  if (each || call.tensor(1).sizes.empty()) {
    const int64_t step = each ? 1 : integerAt(call.tensor(1), 0);
    if (step < 1)
      throw Error("pieces of length {}", step);
    for (int64_t begin = 0; begin < size; begin += step)
      lengths.push_back(std::min(step, size - begin));
  } else {
    for (int64_t i = 0; i < call.tensor(1).count(); ++i)
      lengths.push_back(integerAt(call.tensor(1), i));
  }
  Items items;
  int64_t begin = 0;
  for (int64_t piece : lengths) {
    Tensor part = slice(input, axis, begin, begin + piece);
    begin += piece;
    if (each && !call.integer("keepdims", 1))
      part = withoutAxis(std::move(part), axis);
    items.emplace_back(std::move(part));
  }
  if (begin != size)
    throw Error("pieces of {} in all, of {}", begin, size);
  call.outputs[0] = toSequence(std::move(items));
}

static void concat(HostCall &call) {
  const bool fresh = call.integer("new_axis", 0);
  std::vector<Tensor> parts;
  for (const Value &value : call.inputs[0].needSequence())
    parts.push_back(value.needTensor());
  if (parts.empty())
    throw Error("nothing to concatenate");
  const size_t axis = normalAxis(call.integer("axis", 0),
                                 parts[0].sizes.size() + (fresh ? 1 : 0));
  if (fresh)
    for (Tensor &part : parts)
      part = withAxis(std::move(part), axis);
  call.outputs[0] = concatenate(parts, axis);
}

static void pass(HostCall &call) {
  if (!call.inputs.empty())
    call.outputs[0] = call.inputs[0];
}

static void hasElement(HostCall &call) {
  call.outputs[0] = scalar(call.has(0));
}

static void getElement(HostCall &call) {
  if (!call.has(0))
    throw Error("the optional is empty");
  call.outputs[0] = call.inputs[0];
}

HostTable isthmus::rt::sequenceOperators() {
  static constexpr std::pair<std::string_view, HostOperator> kTable[] = {
      {"SequenceConstruct", construct},
      {"SequenceEmpty", makeEmpty},
      {"SequenceInsert", insert},
      {"SequenceErase", erase},
      {"SequenceAt", at},
      {"SequenceLength", length},
      {"SplitToSequence", split},
      {"ConcatFromSequence", concat},
      {"Optional", pass},
      {"OptionalHasElement", hasElement},
      {"OptionalGetElement", getElement},
      {"Identity", pass},
  };
  return kTable;
}
