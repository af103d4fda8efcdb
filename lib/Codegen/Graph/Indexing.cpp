//===- Indexing.cpp - operators whose inputs say where elements are -------===//
#include "isthmus/Codegen/Graph/Operators.h"

#include "isthmus/runtime/Error.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;

namespace {
using State = ArrayRef<Scalar>;

size_t axisOf(NodeBuilder &n, int64_t otherwise = 0) {
  return n.axis(n.integer("axis", otherwise), n.rank(0));
}

Scalar indexAt(NodeBuilder &n, size_t input, Scalar linear) {
  return n.convert(n.load(input, linear), DataType::I64);
}

void shapeGather(NodeBuilder &n) {
  const size_t axis = axisOf(n);
  Scalars result = n.sizes(0), places = n.sizes(1);
  result.erase(result.begin() + ptrdiff_t(axis));
  result.insert(result.begin() + ptrdiff_t(axis), places.begin(), places.end());
  n.require((n.size(0, axis) > 0) | (n.count(1) == 0), rt::kGraphIndex);
  shapeOf(n, 0, result);
}

void computeGather(NodeBuilder &n) {
  const size_t axis = axisOf(n), places = n.rank(1);
  n.gather([&](State at) {
    Scalar index = indexAt(n, 1, n.linear(1, at.slice(axis, places)));
    Scalars from(at.begin(), at.begin() + axis);
    from.push_back(checkedIndex(n, index, n.size(0, axis)));
    from.insert(from.end(), at.begin() + axis + places, at.end());
    return n.load(0, from);
  });
}

void shapeGatherElements(NodeBuilder &n) {
  const size_t axis = axisOf(n);
  n.require(n.truth(n.rank(0) == n.rank(1)), rt::kGraphSizes);
  for (size_t d = 0; d < n.rank(0); ++d)
    if (d != axis)
      n.require(n.size(1, d) <= n.size(0, d), rt::kGraphSizes);
  n.require((n.size(0, axis) > 0) | (n.count(1) == 0), rt::kGraphIndex);
  sameSizes(n, 1);
}

void computeGatherElements(NodeBuilder &n) {
  const size_t axis = axisOf(n);
  n.gather([&](State at) {
    Scalars from(at.begin(), at.end());
    from[axis] =
        checkedIndex(n, indexAt(n, 1, n.linear(1, at)), n.size(0, axis));
    return n.load(0, from);
  });
}

/// The first dimensions, which GatherND goes through side by side.
size_t batchOf(NodeBuilder &n) {
  const int64_t batch = n.integer("batch_dims", 0);
  if (batch < 0 || batch >= int64_t(std::min(n.rank(0), n.rank(1))))
    throw rt::Error("{}: batch_dims of {} with {} and {} dimensions", n.spec.op,
                    batch, n.rank(0), n.rank(1));
  return size_t(batch);
}

/// How many dimensions an index of GatherND or ScatterND names.
size_t namedBy(NodeBuilder &n, size_t batch) {
  // Where the size is dynamic the rank of the other operand tells.
  const size_t other = n.spec.op == "GatherND" ? n.rank(n.out()) : n.rank(2);
  const int64_t fixed = n.operand(1).sizes.back();
  const int64_t named =
      fixed >= 0
          ? fixed
          : int64_t(n.rank(0) + n.rank(1)) - 1 -
                (n.spec.op == "GatherND" ? int64_t(batch) : 0) - int64_t(other);
  if (named < 0 || int64_t(batch) + named > int64_t(n.rank(0)))
    throw rt::Error("{}: an index names {} of {} dimensions", n.spec.op, named,
                    n.rank(0) - batch);
  return size_t(named);
}

void shapeGatherND(NodeBuilder &n) {
  const size_t batch = batchOf(n);
  const size_t named = namedBy(n, batch);
  n.require(n.size(1, n.rank(1) - 1) == double(named), rt::kGraphSizes);
  for (size_t d = 0; d < batch; ++d)
    n.require(n.size(1, d) == n.size(0, d), rt::kGraphSizes);
  n.require((n.count(0) > 0) | (n.count(1) == 0), rt::kGraphIndex);
  Scalars result = n.sizes(1), all = n.sizes(0);
  result.pop_back();
  result.insert(result.end(), all.begin() + ptrdiff_t(batch + named),
                all.end());
  shapeOf(n, 0, result);
}

void computeGatherND(NodeBuilder &n) {
  const size_t batch = batchOf(n);
  const size_t named = namedBy(n, batch), places = n.rank(1) - 1;
  n.gather([&](State at) {
    Scalars place(at.begin(), at.begin() + places);
    place.push_back(n.index(0));
    Scalar start = n.linear(1, place);
    Scalars from(at.begin(), at.begin() + batch);
    for (size_t i = 0; i < named; ++i)
      from.push_back(checkedIndex(n, indexAt(n, 1, start + double(i)),
                                  n.size(0, batch + i)));
    from.insert(from.end(), at.begin() + places, at.end());
    return n.load(0, from);
  });
}

//===----------------------------------------------------------------------===//
// Scatter: in one tile, since places may come twice
//===----------------------------------------------------------------------===//

void copyInput(NodeBuilder &n) {
  n.loop(n.index(0), n.count(0),
         [&](Scalar i) { n.store(n.out(), i, n.load(0, i)); });
}

void update(NodeBuilder &n, Scalar at, Scalar value) {
  const std::string how = n.text("reduction", "none");
  Scalar before = how == "none" ? Scalar() : n.load(n.out(), at);
  Scalar after = how == "add"   ? before + value
                 : how == "mul" ? before * value
                 : how == "max" ? max(before, value)
                 : how == "min" ? min(before, value)
                                : value;
  n.store(n.out(), at, after);
}

void shapeScatterElements(NodeBuilder &n) {
  const size_t axis = axisOf(n);
  for (size_t d = 0; d < n.rank(0); ++d) {
    n.require(n.size(1, d) == n.size(2, d), rt::kGraphSizes);
    if (d != axis)
      n.require(n.size(1, d) <= n.size(0, d), rt::kGraphSizes);
  }
  sameSizes(n);
  n.setTiles(n.index(1));
}

void computeScatterElements(NodeBuilder &n) {
  const size_t axis = axisOf(n);
  copyInput(n);
  n.box(n.sizes(1), {}, [&](State at, State) {
    Scalar linear = n.linear(1, at);
    Scalars to(at.begin(), at.end());
    to[axis] = checkedIndex(n, indexAt(n, 1, linear), n.size(0, axis));
    n.when(n.count(0) > 0,
           [&] { update(n, n.linear(0, to), n.load(2, linear)); });
    return Scalars{};
  });
}

void shapeScatterND(NodeBuilder &n) {
  const size_t named = namedBy(n, 0), places = n.rank(1) - 1;
  n.require(n.size(1, places) == double(named), rt::kGraphSizes);
  for (size_t d = 0; d < places; ++d)
    n.require(n.size(2, d) == n.size(1, d), rt::kGraphSizes);
  for (size_t d = named; d < n.rank(0); ++d)
    n.require(n.size(2, places + d - named) == n.size(0, d), rt::kGraphSizes);
  sameSizes(n);
  n.setTiles(n.index(1));
}

void computeScatterND(NodeBuilder &n) {
  const size_t named = namedBy(n, 0), places = n.rank(1) - 1;
  copyInput(n);
  Scalars extents = n.sizes(1);
  extents.pop_back();
  Scalar slice = n.index(1);
  for (size_t d = named; d < n.rank(0); ++d)
    slice = slice * n.size(0, d);
  n.box(extents, {}, [&](State at, State) {
    Scalars place(at.begin(), at.end());
    place.push_back(n.index(0));
    Scalar start = n.linear(1, place), to = n.index(0);
    for (size_t i = 0; i < named; ++i)
      to =
          to + checkedIndex(n, indexAt(n, 1, start + double(i)), n.size(0, i)) *
                   n.stride(0, i);
    Scalar from = n.index(0);
    for (size_t d = 0; d < places; ++d)
      from = from + at[d] * n.stride(2, d);
    n.when(n.count(0) > 0, [&] {
      n.loop(n.index(0), slice,
             [&](Scalar j) { update(n, to + j, n.load(2, from + j)); });
    });
    return Scalars{};
  });
}

/// Of a cache of keys or values: sequences are written where each one has come
/// to.
void shapeTensorScatter(NodeBuilder &n) {
  const size_t axis = axisOf(n, -2);
  const bool circular = n.text("mode", "linear") == "circular";
  for (size_t d = 0; d < n.rank(0); ++d)
    if (d != axis)
      n.require(n.size(1, d) == n.size(0, d), rt::kGraphSizes);
  n.require(n.size(1, axis) <= n.size(0, axis), rt::kGraphSizes);
  if (n.has(2)) {
    n.require(n.count(2) == n.size(0, 0), rt::kGraphSizes);
    n.loop(n.index(0), n.count(2), [&](Scalar i) {
      Scalar start = n.load(2, i);
      n.require(start >= 0, rt::kGraphIndex);
      if (!circular)
        n.require(start + n.size(1, axis) <= n.size(0, axis), rt::kGraphIndex);
    });
  }
  sameSizes(n);
}

void computeTensorScatter(NodeBuilder &n) {
  const size_t axis = axisOf(n, -2);
  Scalar size = max(n.size(0, axis), 1);
  n.gather([&](State at) {
    Scalar start = n.has(2) ? n.load(2, at[0]) : n.index(0);
    // How far behind the place of the first new element; around, if circular.
    Scalar offset = at[axis] - start % size;
    offset = select(offset < 0, offset + size, offset);
    Scalar fresh = offset < n.size(1, axis);
    Scalars from(at.begin(), at.end());
    from[axis] = offset;
    return n.either(
        fresh, [&] { return Scalars{n.load(1, from)}; },
        [&] { return Scalars{n.load(0, at)}; })[0];
  });
}

//===----------------------------------------------------------------------===//
// Choices by what elements are
//===----------------------------------------------------------------------===//

Scalar countTrue(NodeBuilder &n, size_t input, Scalar count) {
  return n.sum(n.index(0), count, n.index(0), [&](Scalar i) {
    return select(n.load(input, i) != 0, n.index(1), n.index(0));
  });
}

void shapeNonZero(NodeBuilder &n) {
  shapeOf(n, 0, {n.index(int64_t(n.rank(0))), countTrue(n, 0, n.count(0))});
  n.setTiles(n.index(1));
}

void computeNonZero(NodeBuilder &n) {
  Scalar found = n.size(n.out(), 1);
  Scalars all = n.sizes(0);
  n.loop(n.index(0), n.count(0), {n.index(0)},
         [&](Scalar i, State state) -> Scalars {
           Scalar is = n.load(0, i) != 0;
           n.when(is, [&] {
             Scalars at = n.coordinates(i, all);
             for (size_t d = 0; d < at.size(); ++d)
               n.store(n.out(), found * double(d) + state[0], at[d]);
           });
           return {state[0] + select(is, n.index(1), n.index(0))};
         });
}

/// The dimension that Compress goes along, of the input flattened if it names
/// none.
struct Compression {
  Scalar outer, size, inner, used;
  explicit Compression(NodeBuilder &n) {
    outer = inner = n.index(1);
    size = n.count(0);
    if (n.hasAttribute("axis")) {
      const size_t axis = axisOf(n);
      size = n.size(0, axis);
      inner = n.stride(0, axis);
      for (size_t d = 0; d < axis; ++d)
        outer = outer * n.size(0, d);
    }
    used = min(n.count(1), size);
  }
};

void shapeCompress(NodeBuilder &n) {
  Compression c(n);
  Scalar kept = countTrue(n, 1, c.used);
  Scalars result = {kept};
  if (n.hasAttribute("axis")) {
    result = n.sizes(0);
    result[axisOf(n)] = kept;
  }
  shapeOf(n, 0, result);
  n.setTiles(n.index(1));
}

void computeCompress(NodeBuilder &n) {
  Compression c(n);
  n.loop(
      n.index(0), c.outer, {n.index(0)}, [&](Scalar o, State state) -> Scalars {
        return n.loop(n.index(0), c.used, {state[0]},
                      [&](Scalar i, State inner) -> Scalars {
                        Scalar keep = n.load(1, i);
                        n.when(keep, [&] {
                          n.loop(n.index(0), c.inner, [&](Scalar j) {
                            n.store(n.out(), inner[0] + j,
                                    n.load(0, (o * c.size + i) * c.inner + j));
                          });
                        });
                        return {inner[0] + select(keep, c.inner, n.index(0))};
                      });
      });
}

void shapeArrayFeatures(NodeBuilder &n) {
  Scalars result = n.sizes(0);
  result.back() = n.count(1);
  if (result.size() == 1)
    result.insert(result.begin(), n.index(1));
  shapeOf(n, 0, result);
}

void computeArrayFeatures(NodeBuilder &n) {
  Scalar features = n.size(0, n.rank(0) - 1), wanted = n.count(1);
  n.forEach(n.out(), [&](State at, Scalar i) {
    Scalar row = i / max(wanted, 1);
    Scalar feature = checkedIndex(n, indexAt(n, 1, at.back()), features);
    n.store(n.out(), i, n.load(0, row * features + feature));
  });
}

constexpr Operator kTable[] = {
    {"Gather", shapeGather, computeGather},
    {"GatherElements", shapeGatherElements, computeGatherElements},
    {"GatherND", shapeGatherND, computeGatherND},
    {"ScatterElements", shapeScatterElements, computeScatterElements},
    {"Scatter", shapeScatterElements, computeScatterElements},
    {"ScatterND", shapeScatterND, computeScatterND},
    {"TensorScatter", shapeTensorScatter, computeTensorScatter},
    {"NonZero", shapeNonZero, computeNonZero},
    {"Compress", shapeCompress, computeCompress},
    {"ArrayFeatureExtractor", shapeArrayFeatures, computeArrayFeatures},
};
} // namespace

OperatorTable isthmus::indexingOperators() { return kTable; }
