//===- Selection.cpp - Unique, NonMaxSuppression --------------------------===//
//
// Sorting and greedy choices: how much comes out is known only when it is done.
//
//===----------------------------------------------------------------------===//
#include "Operators.h"
#include "Pieces.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>

using namespace isthmus::rt;

/// Compares elements `a` and `b` of a tensor: negative, 0 or positive. NaN is
/// equal to itself and above all others, as NumPy sorts it.
template <typename T>
static int compareAt(const Tensor &tensor, int64_t a, int64_t b) {
  const T x = tensor.as<T>()[a], y = tensor.as<T>()[b];
  if (x != x || y != y)
    return int(x != x) - int(y != y);
  return x < y ? -1 : x > y;
}

/// bf16 as the upper half of an f32.
static int compareBF16(const Tensor &tensor, int64_t a, int64_t b) {
  auto at = [&](int64_t i) {
    return std::bit_cast<float>(uint32_t(tensor.as<uint16_t>()[i]) << 16);
  };
  const float x = at(a), y = at(b);
  if (x != x || y != y)
    return int(x != x) - int(y != y);
  return x < y ? -1 : x > y;
}

static int compareTexts(const Tensor &tensor, int64_t a, int64_t b) {
  return (*tensor.texts)[size_t(a)].compare((*tensor.texts)[size_t(b)]);
}

using Compare = int (*)(const Tensor &, int64_t, int64_t);
static Compare compareFor(DataType type) {
  switch (type) {
  case DataType::F32:
    return compareAt<float>;
  case DataType::F64:
    return compareAt<double>;
  case DataType::I8:
    return compareAt<int8_t>;
  case DataType::U8:
  case DataType::Bool:
    return compareAt<uint8_t>;
  case DataType::I16:
    return compareAt<int16_t>;
  case DataType::U16:
    return compareAt<uint16_t>;
  case DataType::I32:
    return compareAt<int32_t>;
  case DataType::U32:
    return compareAt<uint32_t>;
  case DataType::I64:
    return compareAt<int64_t>;
  case DataType::U64:
    return compareAt<uint64_t>;
  case DataType::BF16:
    return compareBF16;
  case DataType::String:
    return compareTexts;
  default:
    throw Error("values of type {} are not compared", nameOf(type));
  }
}

static Tensor vectorOf(const std::vector<int64_t> &values) {
  Tensor tensor = Tensor::allocate(DataType::I64, {int64_t(values.size())});
  std::ranges::copy(values, tensor.as<int64_t>());
  return tensor;
}

static void unique(HostCall &call) {
  Tensor input = call.tensor(0);
  const auto *axisAttribute = call.attribute("axis");
  if (!axisAttribute)
    input.sizes = {input.count()};
  const size_t axis = normalAxis(call.integer("axis", 0), input.sizes.size());
  const int64_t size = input.sizes[axis];
  const Compare compare = compareFor(input.type);
  int64_t inner = 1, outer = 1;
  for (size_t d = 0; d < input.sizes.size(); ++d)
    (d < axis ? outer : inner) *= d == axis ? 1 : input.sizes[d];
  auto compareSlices = [&](int64_t a, int64_t b) {
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < inner; ++i)
        if (int order = compare(input, (o * size + a) * inner + i,
                                (o * size + b) * inner + i))
          return order;
    return 0;
  };
  std::vector<int64_t> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](int64_t a, int64_t b) {
    const int c = compareSlices(a, b);
    return c ? c < 0 : a < b;
  });
  // Of each group the first place in the input.
  struct Group {
    int64_t first, count;
  };
  std::vector<Group> groups;
  std::vector<size_t> groupOf(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || compareSlices(order[i - 1], order[i]) != 0)
      groups.push_back({order[i], 0});
    ++groups.back().count;
    groupOf[size_t(order[i])] = groups.size() - 1;
  }
  std::vector<size_t> rank(groups.size());
  std::iota(rank.begin(), rank.end(), 0);
  if (!call.integer("sorted", 1))
    std::ranges::sort(rank, {}, [&](size_t g) { return groups[g].first; });
  std::vector<size_t> place(groups.size());
  std::vector<int64_t> first, counts, inverse;
  std::vector<Tensor> pieces;
  for (size_t i = 0; i < rank.size(); ++i) {
    const Group &group = groups[rank[i]];
    place[rank[i]] = i;
    first.push_back(group.first);
    counts.push_back(group.count);
    pieces.push_back(slice(input, axis, group.first, group.first + 1));
  }
  for (size_t group : groupOf)
    inverse.push_back(int64_t(place[group]));
  const Tensor results[] = {
      pieces.empty() ? slice(input, axis, 0, 0) : concatenate(pieces, axis),
      vectorOf(first), vectorOf(inverse), vectorOf(counts)};
  for (size_t o = 0; o < call.outputs.size() && o < 4; ++o)
    call.outputs[o] = results[o];
}

namespace {
struct Box {
  float y1, x1, y2, x2;
  float area() const { return (y2 - y1) * (x2 - x1); }
};
} // namespace

static Box boxAt(const float *values, bool centered) {
  if (centered) {
    const float x = values[0], y = values[1], w = values[2], h = values[3];
    return {y - h / 2, x - w / 2, y + h / 2, x + w / 2};
  }
  return {std::min(values[0], values[2]), std::min(values[1], values[3]),
          std::max(values[0], values[2]), std::max(values[1], values[3])};
}

static float overlap(const Box &a, const Box &b) {
  const float h = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  const float w = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (h <= 0 || w <= 0)
    return 0;
  const float both = h * w;
  return both / (a.area() + b.area() - both);
}

static void suppress(HostCall &call) {
  const Tensor &boxes = call.tensor(0), &scores = call.tensor(1);
  if (boxes.type != DataType::F32 || scores.type != DataType::F32 ||
      boxes.sizes.size() != 3 || scores.sizes.size() != 3 ||
      boxes.sizes[2] != 4 || boxes.sizes[0] != scores.sizes[0] ||
      boxes.sizes[1] != scores.sizes[2])
    throw Error("boxes are [batches, boxes, 4] and scores [batches, classes, "
                "boxes] of float32");
  const int64_t batches = scores.sizes[0], classes = scores.sizes[1],
                count = scores.sizes[2];
  const int64_t most = call.has(2) ? integerAt(call.tensor(2), 0) : 0;
  auto number = [&](size_t input, float otherwise) {
    return call.has(input) && call.tensor(input).count() > 0
               ? call.tensor(input).as<float>()[0]
               : otherwise;
  };
  const float mostOverlap = number(3, 0), least = number(4, -INFINITY);
  const bool centered = call.integer("center_point_box", 0);
  std::vector<int64_t> chosen;
  for (int64_t b = 0; b < batches; ++b)
    for (int64_t c = 0; c < classes; ++c) {
      const float *own = scores.as<float>() + (b * classes + c) * count;
      std::vector<int64_t> order;
      for (int64_t i = 0; i < count; ++i)
        if (own[i] > least)
          order.push_back(i);
      std::ranges::sort(order, [&](int64_t i, int64_t j) {
        return own[i] != own[j] ? own[i] > own[j] : i < j;
      });
      std::vector<Box> kept;
      for (int64_t i : order) {
        if (int64_t(kept.size()) >= most)
          break;
        Box box = boxAt(boxes.as<float>() + (b * count + i) * 4, centered);
        if (std::ranges::any_of(kept, [&](const Box &other) {
              return overlap(box, other) > mostOverlap;
            }))
          continue;
        kept.push_back(box);
        chosen.insert(chosen.end(), {b, c, i});
      }
    }
  Tensor result = vectorOf(chosen);
  result.sizes = {int64_t(chosen.size()) / 3, 3};
  call.outputs[0] = std::move(result);
}

HostTable isthmus::rt::selectionOperators() {
  static constexpr std::pair<std::string_view, HostOperator> kTable[] = {
      {"Unique", unique}, {"NonMaxSuppression", suppress}};
  return kTable;
}
