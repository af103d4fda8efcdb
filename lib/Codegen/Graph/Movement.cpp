//===- Movement.cpp - operators that put elements elsewhere ---------------===//
#include "isthmus/Codegen/Graph/Operators.h"

#include "isthmus/runtime/Error.h"

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;

namespace {
using State = ArrayRef<Scalar>;

//===----------------------------------------------------------------------===//
// Transpose
//===----------------------------------------------------------------------===//

std::vector<int64_t> permutation(NodeBuilder &n) {
  std::vector<int64_t> order = n.integers("perm");
  if (order.empty())
    for (size_t d = n.rank(0); d-- > 0;)
      order.push_back(int64_t(d));
  std::vector<bool> seen(n.rank(0));
  for (int64_t &d : order) {
    d = int64_t(n.axis(d, n.rank(0)));
    seen[size_t(d)] = true;
  }
  if (order.size() != seen.size() || llvm::is_contained(seen, false))
    throw rt::Error("Transpose: perm does not name each of {} dimensions once",
                    seen.size());
  return order;
}

void shapeTranspose(NodeBuilder &n) {
  Scalars result;
  for (int64_t d : permutation(n))
    result.push_back(n.size(0, size_t(d)));
  shapeOf(n, 0, result);
}

void computeTranspose(NodeBuilder &n) {
  std::vector<int64_t> order = permutation(n);
  n.gather([&](State at) {
    Scalar from = n.index(0);
    for (size_t d = 0; d < order.size(); ++d)
      from = from + at[d] * n.stride(0, size_t(order[d]));
    return n.load(0, from);
  });
}

//===----------------------------------------------------------------------===//
// Concat and Split: runs of elements, side by side in rows
//===----------------------------------------------------------------------===//

/// Elements of one step along `axis` of an operand.
Scalar runOf(NodeBuilder &n, size_t number, size_t axis) {
  Scalar run = n.index(1);
  for (size_t d = axis; d < n.rank(number); ++d)
    run = run * n.size(number, d);
  return run;
}

/// Goes through elements [first, last) of rows that consist of the runs
/// `lengths`, and calls copy(piece, element of the row's run, element in all).
void forEachRun(NodeBuilder &n, State lengths, Scalar total,
                function_ref<void(size_t, Scalar, Scalar)> copy) {
  Scalar width = n.index(0);
  for (Scalar length : lengths)
    width = width + length;
  width = max(width, 1);
  auto [first, last] = n.range(total);
  n.loop(first / width, (last + width - 1) / width, [&](Scalar row) {
    Scalar start = row * width;
    for (size_t piece = 0; piece < lengths.size(); ++piece) {
      Scalar length = lengths[piece];
      Scalar own = row * length;
      n.loop(max(first - start, 0), min(last - start, length),
             [&](Scalar j) { copy(piece, own + j, start + j); });
      start = start + length;
    }
  });
}

void shapeConcat(NodeBuilder &n) {
  Scalars result = n.sizes(0);
  const size_t axis = n.axis(n.integer("axis", 0), result.size());
  for (size_t i = 1; i < n.inputs(); ++i)
    for (size_t d = 0; d < result.size(); ++d) {
      if (d == axis)
        result[d] = result[d] + n.size(i, d);
      else
        n.require(n.size(i, d) == result[d], rt::kGraphSizes);
    }
  shapeOf(n, 0, result);
}

void computeConcat(NodeBuilder &n) {
  const size_t axis = n.axis(n.integer("axis", 0), n.rank(0));
  Scalars lengths;
  for (size_t i = 0; i < n.inputs(); ++i)
    lengths.push_back(runOf(n, i, axis));
  forEachRun(n, lengths, n.count(n.out()),
             [&](size_t piece, Scalar from, Scalar to) {
               n.store(n.out(), to, n.load(piece, from));
             });
}

void shapeSplit(NodeBuilder &n) {
  const size_t axis = n.axis(n.integer("axis", 0), n.rank(0));
  const size_t pieces = n.spec.outputs.size();
  Scalar size = n.size(0, axis), rest = size;
  Scalar chunk = (size + double(pieces - 1)) / double(pieces);
  for (size_t o = 0; o < pieces; ++o) {
    Scalar own = n.has(1) ? n.integerAt(1, o) : min(chunk, rest);
    rest = rest - own;
    Scalars result = n.sizes(0);
    result[axis] = own;
    shapeOf(n, o, result);
  }
  n.require(rest == 0, rt::kGraphSizes);
  if (n.has(1))
    n.require(n.count(1) == double(pieces), rt::kGraphSizes);
  n.setTilesBy(n.count(0));
}

void computeSplit(NodeBuilder &n) {
  const size_t axis = n.axis(n.integer("axis", 0), n.rank(0));
  Scalars lengths;
  for (size_t o = 0; o < n.spec.outputs.size(); ++o)
    lengths.push_back(runOf(n, n.out(o), axis));
  forEachRun(n, lengths, n.count(0), [&](size_t piece, Scalar to, Scalar from) {
    n.store(n.out(piece), to, n.load(0, from));
  });
}

bool allOutputs(const NodeSpec &spec) {
  return llvm::all_of(spec.outputs,
                      [](const TensorSpec &out) { return out.present(); });
}

//===----------------------------------------------------------------------===//
// Slice, Pad, Tile
//===----------------------------------------------------------------------===//

/// What an input of numbers says for each dimension of input 0: `otherwise` for
/// those that the axes in input `axesInput` leave out.
Scalars perDimension(NodeBuilder &n, size_t input, size_t axesInput,
                     Scalars otherwise, size_t offset = 0) {
  const size_t rank = n.rank(0);
  if (!n.has(axesInput)) {
    for (size_t d = 0; d < rank; ++d) {
      Scalar inside = n.index(int64_t(d + offset)) < n.count(input);
      // Fewer numbers than dimensions may be given.
      Scalar at = select(inside, n.index(int64_t(d + offset)), n.index(0));
      Scalar given = NodeBuilder::known(inside) == 1
                         ? n.integerAt(input, d + offset)
                         : n.convert(n.load(input, at), DataType::I64);
      otherwise[d] = select(inside, given, otherwise[d]);
    }
    return otherwise;
  }
  auto set = [&](Scalars state, Scalar axis, Scalar value) {
    axis = select(axis < 0, axis + double(rank), axis);
    for (size_t d = 0; d < rank; ++d)
      state[d] = select(axis == double(d), value, state[d]);
    return state;
  };
  if (n.operand(axesInput).integers) {
    const auto &axes = *n.operand(axesInput).integers;
    for (size_t i = 0; i < axes.size(); ++i)
      otherwise = set(otherwise, n.index(axes[i]),
                      n.integerAt(input, i + offset * axes.size() /
                                                 std::max<size_t>(rank, 1)));
    return otherwise;
  }
  Scalar count = n.count(axesInput);
  Scalar skip = offset ? count : n.index(0);
  return n.loop(n.index(0), count, otherwise, [&](Scalar i, State state) {
    return set(state.vec(), n.convert(n.load(axesInput, i), DataType::I64),
               n.convert(n.load(input, i + skip), DataType::I64));
  });
}

/// Of each dimension where a slice begins, how many elements it has, and its
/// step.
struct Slicing {
  Scalars start, count, step;
  explicit Slicing(NodeBuilder &n) {
    const size_t rank = n.rank(0);
    Scalars unset(rank, n.index(0)), ones(rank, n.index(1));
    Scalars begins = perDimension(n, 1, 3, unset);
    Scalars ends = perDimension(n, 2, 3, n.sizes(0));
    step = n.has(4) ? perDimension(n, 4, 3, ones) : ones;
    for (size_t d = 0; d < rank; ++d) {
      Scalar size = n.size(0, d);
      n.require(step[d] != 0, rt::kGraphValue);
      Scalar back = step[d] < 0;
      auto clamp = [&](Scalar place, Scalar low, Scalar high) {
        place = select(place < 0, place + size, place);
        return min(max(place, low), high);
      };
      Scalar first = clamp(begins[d], n.index(0), select(back, size - 1, size));
      // -1 is the end before the first element, when it goes backwards.
      Scalar last = clamp(ends[d], select(back, n.index(-1), n.index(0)), size);
      Scalar span = select(back, first - last, last - first);
      Scalar stride = abs(step[d]);
      start.push_back(max(first, 0));
      count.push_back(
          select(size == 0, n.index(0), max((span + stride - 1) / stride, 0)));
    }
  }
};

void shapeSlice(NodeBuilder &n) { shapeOf(n, 0, Slicing(n).count); }

void computeSlice(NodeBuilder &n) {
  Slicing slicing(n);
  n.gather([&](State at) {
    Scalars from;
    for (size_t d = 0; d < at.size(); ++d)
      from.push_back(slicing.start[d] + at[d] * slicing.step[d]);
    return n.load(0, from);
  });
}

Scalars padding(NodeBuilder &n, bool end) {
  Scalars none(n.rank(0), n.index(0));
  return perDimension(n, 1, 3, none, end ? n.rank(0) : 0);
}

void shapePad(NodeBuilder &n) {
  Scalars before = padding(n, false), after = padding(n, true), result;
  const bool needsElement = n.text("mode", "constant") != "constant";
  for (size_t d = 0; d < n.rank(0); ++d) {
    result.push_back(n.size(0, d) + before[d] + after[d]);
    if (needsElement)
      n.require((n.size(0, d) > 0) | (result.back() == 0), rt::kGraphSizes);
  }
  shapeOf(n, 0, result);
}

void computePad(NodeBuilder &n) {
  const std::string mode = n.text("mode", "constant");
  Scalars before = padding(n, false);
  Scalar value = n.has(2) ? n.scalarInput(2) : n.constant(n.operand(0).type, 0);
  n.gather([&](State at) {
    Scalars from;
    Scalar inside = n.truth(true);
    for (size_t d = 0; d < at.size(); ++d) {
      Scalar size = n.size(0, d), place = at[d] - before[d];
      if (mode == "constant") {
        inside = inside & (place >= 0) & (place < size);
        place = min(max(place, 0), max(size - 1, 0));
      } else if (mode == "edge") {
        place = min(max(place, 0), size - 1);
      } else {
        // Wrap: around; reflect: there and back, ends not twice.
        Scalar period = mode == "wrap" ? size : max((size - 1) * 2, 1);
        place = place % period;
        place = select(place < 0, place + period, place);
        if (mode != "wrap")
          place = select(place >= size, period - place, place);
      }
      from.push_back(place);
    }
    // An empty tensor has no element that could stand for those outside.
    if (mode == "constant") {
      return n.either(
          inside & (n.count(0) > 0), [&] { return Scalars{n.load(0, from)}; },
          [&] { return Scalars{value}; })[0];
    }
    return n.load(0, from);
  });
}

void shapeTile(NodeBuilder &n) {
  Scalars result;
  n.require(n.count(1) == double(n.rank(0)), rt::kGraphSizes);
  for (size_t d = 0; d < n.rank(0); ++d)
    result.push_back(n.size(0, d) * n.integerAt(1, d));
  shapeOf(n, 0, result);
}

void computeTile(NodeBuilder &n) {
  n.gather([&](State at) {
    Scalars from;
    for (size_t d = 0; d < at.size(); ++d)
      from.push_back(at[d] % max(n.size(0, d), 1));
    return n.load(0, from);
  });
}

//===----------------------------------------------------------------------===//
// Blocks of pictures, triangles, sequences
//===----------------------------------------------------------------------===//

void shapeDepthToSpace(NodeBuilder &n) {
  const auto block = double(n.integer("blocksize", 1));
  Scalar depth = n.size(0, 1);
  n.require(depth % (block * block) == 0, rt::kGraphSizes);
  shapeOf(n, 0,
          {n.size(0, 0), depth / (block * block), n.size(0, 2) * block,
           n.size(0, 3) * block});
}

void computeDepthToSpace(NodeBuilder &n) {
  const auto block = double(n.integer("blocksize", 1));
  const bool columns = n.text("mode", "DCR") == "CRD";
  Scalar depth = n.size(n.out(), 1);
  n.gather([&](State at) {
    Scalar y = at[2] / block, x = at[3] / block;
    Scalar inBlock = (at[2] - y * block) * block + (at[3] - x * block);
    Scalar channel =
        columns ? at[1] * (block * block) + inBlock : inBlock * depth + at[1];
    return n.load(0, Scalars{at[0], channel, y, x});
  });
}

void shapeSpaceToDepth(NodeBuilder &n) {
  const auto block = double(n.integer("blocksize", 1));
  n.require((n.size(0, 2) % block == 0) & (n.size(0, 3) % block == 0),
            rt::kGraphSizes);
  shapeOf(n, 0,
          {n.size(0, 0), n.size(0, 1) * (block * block), n.size(0, 2) / block,
           n.size(0, 3) / block});
}

void computeSpaceToDepth(NodeBuilder &n) {
  const auto block = double(n.integer("blocksize", 1));
  const bool columns = n.text("mode", "DCR") == "CRD";
  Scalar depth = n.size(0, 1);
  n.gather([&](State at) {
    Scalar channel, inBlock;
    if (columns) {
      channel = at[1] / (block * block);
      inBlock = at[1] - channel * (block * block);
    } else {
      inBlock = at[1] / max(depth, 1);
      channel = at[1] - inBlock * depth;
    }
    Scalar row = inBlock / block;
    return n.load(0, Scalars{at[0], channel, at[2] * block + row,
                             at[3] * block + (inBlock - row * block)});
  });
}

void computeTrilu(NodeBuilder &n) {
  Scalar k = n.has(1) ? n.integerAt(1, 0) : n.index(0);
  const bool upper = n.integer("upper", 1);
  const DataType type = n.operand(0).type;
  n.gather([&](State at) {
    Scalar row = at[at.size() - 2], column = at[at.size() - 1];
    Scalar keep = upper ? column >= row + k : column <= row + k;
    return select(keep, n.load(0, at), n.constant(type, 0));
  });
}

void shapeReverseSequence(NodeBuilder &n) {
  const size_t batch = n.axis(n.integer("batch_axis", 1), n.rank(0));
  n.require(n.size(1, 0) == n.size(0, batch), rt::kGraphSizes);
  sameSizes(n);
}

void computeReverseSequence(NodeBuilder &n) {
  const size_t batch = n.axis(n.integer("batch_axis", 1), n.rank(0)),
               time = n.axis(n.integer("time_axis", 0), n.rank(0));
  n.gather([&](State at) {
    Scalar length = n.load(1, at[batch]);
    Scalar inside = (length >= 0) & (length <= n.size(0, time));
    n.require(inside, rt::kGraphIndex);
    length = select(inside, length, n.index(0));
    Scalars from(at.begin(), at.end());
    from[time] = select(at[time] < length, length - 1 - at[time], at[time]);
    return n.load(0, from);
  });
}

constexpr Operator kTable[] = {
    {"Transpose", shapeTranspose, computeTranspose},
    {"Concat", shapeConcat, computeConcat},
    {"Split", shapeSplit, computeSplit, kLightGrain, allOutputs},
    {"Slice", shapeSlice, computeSlice},
    {"Pad", shapePad, computePad},
    {"Tile", shapeTile, computeTile},
    {"DepthToSpace", shapeDepthToSpace, computeDepthToSpace},
    {"SpaceToDepth", shapeSpaceToDepth, computeSpaceToDepth},
    {"Trilu", shapeAsInput, computeTrilu},
    {"ReverseSequence", shapeReverseSequence, computeReverseSequence},
};
} // namespace

OperatorTable isthmus::movementOperators() { return kTable; }
