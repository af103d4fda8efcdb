//===- Products.cpp - products of matrices and Einstein sums --------------===//
#include "Matrix.h"
#include "Quantize.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

#include <map>

using namespace mlir;
using namespace isthmus;
using Scalars = NodeBuilder::Scalars;

namespace {
using State = ArrayRef<Scalar>;

/// Floats are summed in f32, or f64 if they are; integers in the result's type.
DataType sumType(NodeBuilder &n) {
  const DataType type = n.operand(n.out()).type;
  const DataType input = NodeBuilder::computeType(n.operand(0).type);
  return isFloat(input) ? input : NodeBuilder::computeType(type);
}

/// The two matrices of a product, as stacks of them: vectors are matrices of
/// one row or column.
struct MatMul {
  size_t a, b; ///< operands
  bool vectorA, vectorB;
  Scalar rows, inner, columns;
  MatMul(NodeBuilder &n, size_t a, size_t b)
      : a(a), b(b), vectorA(n.rank(a) == 1), vectorB(n.rank(b) == 1) {
    const size_t ra = n.rank(a), rb = n.rank(b);
    rows = vectorA ? n.index(1) : n.size(a, ra - 2);
    inner = n.size(a, ra - 1);
    columns = vectorB ? n.index(1) : n.size(b, rb - 1);
  }
  static Scalars stack(NodeBuilder &n, size_t number) {
    Scalars all = n.sizes(number);
    all.resize(all.size() < 2 ? 0 : all.size() - 2);
    return all;
  }
};

void shapeProduct(NodeBuilder &n, size_t a, size_t b) {
  MatMul m(n, a, b);
  n.require(n.size(b, m.vectorB ? 0 : n.rank(b) - 2) == m.inner,
            rt::kGraphSizes);
  Scalars result = n.broadcastSizes({MatMul::stack(n, a), MatMul::stack(n, b)});
  if (!m.vectorA)
    result.push_back(m.rows);
  if (!m.vectorB)
    result.push_back(m.columns);
  shapeOf(n, 0, result);
}

/// Stores finish(row, column, sum in `type` of term(a's place, b's place, row,
/// column)).
void computeProduct(NodeBuilder &n, size_t a, size_t b, DataType type,
                    function_ref<Scalar(Scalar, Scalar, Scalar, Scalar)> term,
                    function_ref<Scalar(Scalar, Scalar, Scalar)> finish) {
  MatMul m(n, a, b);
  const size_t matrixDims = (m.vectorA ? 0 : 1) + (m.vectorB ? 0 : 1);
  n.forEach(n.out(), [&](State at, Scalar i) {
    const size_t stacked = at.size() - matrixDims;
    Scalar row = m.vectorA ? n.index(0) : at[stacked];
    Scalar column = m.vectorB ? n.index(0) : at.back();
    auto base = [&](size_t number) {
      Scalar result = n.index(0);
      const size_t own = MatMul::stack(n, number).size();
      for (size_t d = 0; d < own; ++d)
        result = result + select(n.size(number, d) == 1, n.index(0),
                                 at[d + stacked - own]) *
                              n.stride(number, d);
      return result;
    };
    Scalar startA = base(a) + row * m.inner, startB = base(b) + column;
    Scalar sum = n.sum(n.index(0), m.inner, n.constant(type, 0), [&](Scalar k) {
      return term(startA + k, startB + k * m.columns, row, column);
    });
    n.store(n.out(), i, finish(row, column, sum));
  });
}

//===----------------------------------------------------------------------===//
// In blocks (Matrix.h)
//===----------------------------------------------------------------------===//

/// A product as a stack of matrices; where B is one matrix, all rows of A are
/// one.
struct Stacked {
  MatMul m;
  Scalar count, rows;
  Scalars sizes; ///< of the stack
  Stacked(NodeBuilder &n, size_t a, size_t b) : m(n, a, b), rows(m.rows) {
    count = n.index(1);
    if (n.rank(b) <= 2) {
      for (Scalar size : MatMul::stack(n, a))
        rows = rows * size;
      return;
    }
    // What broadcastSizes has checked already.
    Scalars one = MatMul::stack(n, a), two = MatMul::stack(n, b);
    sizes.assign(std::max(one.size(), two.size()), n.index(1));
    for (const Scalars *own : {&one, &two})
      for (size_t d = 0; d < own->size(); ++d) {
        Scalar &size = sizes[d + sizes.size() - own->size()];
        size = select((*own)[d] == 1, size, (*own)[d]);
      }
    for (Scalar size : sizes)
      count = count * size;
  }
  Scalar tiles(NodeBuilder &n) const {
    return count * matrixTiles(n, rows, m.columns);
  }
};

/// What is multiplied in blocks as it stands.
bool areFloats(NodeBuilder &n) {
  return n.operand(0).type == DataType::F32 &&
         n.operand(1).type == DataType::F32;
}

void computeBlocked(NodeBuilder &n,
                    function_ref<void(Matrix &, const MatrixTile &,
                                      Scalar startA, Scalar startB)>
                        change) {
  Stacked stacked(n, 0, 1);
  const MatMul &m = stacked.m;
  Scalar perMatrix = max(matrixTiles(n, stacked.rows, m.columns), 1);
  n.loop({&n, n.k.begin, DataType::I64}, {&n, n.k.end, DataType::I64},
         [&](Scalar tile) {
           Scalar which = tile / perMatrix;
           MatrixTile part =
               matrixTile(n, tile - which * perMatrix, stacked.rows, m.columns);
           Scalars at = n.coordinates(which, stacked.sizes);
           auto base = [&](size_t number) {
             Scalar result = n.index(0);
             const size_t own = MatMul::stack(n, number).size();
             if (stacked.sizes.empty())
               return result;
             for (size_t d = 0; d < own; ++d)
               result = result + select(n.size(number, d) == 1, n.index(0),
                                        at[d + at.size() - own]) *
                                     n.stride(number, d);
             return result;
           };
           Scalar startA = base(0) + part.row * m.inner,
                  startB = base(1) + part.column;
           Matrix matrix;
           matrix.rows = part.rows;
           matrix.columns = part.columns;
           matrix.inner = m.inner;
           matrix.aRow = m.inner * 4.0;
           matrix.aInner = n.index(4);
           matrix.bInner = m.columns * 4.0;
           matrix.cRow = m.columns * 4.0;
           matrix.a = n.address(0, startA);
           matrix.b = n.address(1, startB);
           matrix.c = n.address(n.out(),
                                (which * stacked.rows + part.row) * m.columns +
                                    part.column);
           change(matrix, part, startA, startB);
           emitMatrix(n, matrix);
         });
}

void shapeMatMul(NodeBuilder &n) {
  shapeProduct(n, 0, 1);
  if (areFloats(n))
    n.setTiles(Stacked(n, 0, 1).tiles(n));
}

void computeMatMul(NodeBuilder &n) {
  if (areFloats(n))
    return computeBlocked(n,
                          [](Matrix &, const MatrixTile &, Scalar, Scalar) {});
  const DataType type = sumType(n);
  computeProduct(
      n, 0, 1, type,
      [&](Scalar a, Scalar b, Scalar, Scalar) {
        return n.convert(n.load(0, a), type) * n.convert(n.load(1, b), type);
      },
      [&](Scalar, Scalar, Scalar sum) { return sum; });
}

/// A zero point or scale: one, or one for each row or column.
Scalar parameter(NodeBuilder &n, size_t input, Scalar place, DataType type) {
  if (!n.has(input))
    return n.constant(type, 0);
  Scalar single = n.count(input) == 1;
  return n.convert(n.load(input, select(single, n.index(0), place)), type);
}

void requireParameter(NodeBuilder &n, size_t input, Scalar count) {
  if (n.has(input))
    n.require((n.count(input) == 1) | (n.count(input) == count),
              rt::kGraphSizes);
}

// Of bytes, without their zero points, as pairs of int16: those of a tile are
// written out, rows of A and columns of B.

Scalar pairsOf(const MatMul &m) { return (m.inner + 1) / 2; }

void shapeMatMulInteger(NodeBuilder &n) {
  MatMul m(n, 0, 1);
  requireParameter(n, 2, m.rows);
  requireParameter(n, 3, m.columns);
  shapeProduct(n, 0, 1);
  n.setTiles(Stacked(n, 0, 1).tiles(n));
  n.setScratch(pairsOf(m) * double((kMatrixRows + kMatrixColumns) * 4) + 64);
}

/// Writes pairs of a tile's elements to the scratch memory: `outer` times
/// `inner` words, of which element (o, i) stands at word(o, i). Its two numbers
/// are those at first(o, i) and, if `second` says so, `apart` behind it.
struct PairWriter {
  NodeBuilder &n;
  size_t operand, zero;
  Scalar apart;

  void write(Scalar at, Scalar place, Scalar hasSecond, Scalar channel) const {
    Scalar shift = parameter(n, zero, channel, DataType::I32);
    auto element = [&](Scalar from) {
      return n.convert(n.load(operand, from), DataType::I32) - shift;
    };
    Scalar second =
        select(hasSecond, element(at + select(hasSecond, apart, n.index(0))),
               n.constant(DataType::I32, 0));
    n.storeScratch(place * 4.0, wordOf(n, element(at), second));
  }
};

void computeMatMulInteger(NodeBuilder &n) {
  MatMul m(n, 0, 1);
  Scalar pairs = pairsOf(m);
  const PairWriter a{n, 0, 2, n.index(1)}, b{n, 1, 3, m.columns};
  computeBlocked(n, [&](Matrix &matrix, const MatrixTile &part, Scalar startA,
                        Scalar startB) {
    n.loop(n.index(0), part.rows, [&](Scalar row) {
      // Rows count through all matrices of a stack; zero points repeat.
      Scalar own = (part.row + row) % max(m.rows, 1);
      n.loop(n.index(0), pairs, [&](Scalar pair) {
        a.write(startA + row * m.inner + pair * 2, row * pairs + pair,
                pair * 2 + 1 < m.inner, own);
      });
    });
    Scalar columns = pairs * double(kMatrixRows);
    n.loop(n.index(0), pairs, [&](Scalar pair) {
      n.loop(n.index(0), part.columns, [&](Scalar column) {
        b.write(startB + pair * 2 * m.columns + column,
                columns + pair * double(kMatrixColumns) + column,
                pair * 2 + 1 < m.inner, part.column + column);
      });
    });
    matrix.pairs = true;
    matrix.inner = pairs;
    matrix.aRow = pairs * 4.0;
    matrix.bInner = n.index(kMatrixColumns * 4);
    matrix.a = n.k.scratch;
    matrix.b = n.k.ptr(n.k.scratch, (columns * 4.0).value);
  });
}

void shapeQLinearMatMul(NodeBuilder &n) {
  MatMul m(n, 0, 3);
  for (size_t input : {1, 2})
    requireParameter(n, input, m.rows);
  for (size_t input : {4, 5})
    requireParameter(n, input, m.columns);
  for (size_t input : {6, 7})
    requireParameter(n, input, m.rows);
  shapeProduct(n, 0, 3);
}

void computeQLinearMatMul(NodeBuilder &n) {
  const DataType type = DataType::I32;
  computeProduct(
      n, 0, 3, type,
      [&](Scalar a, Scalar b, Scalar row, Scalar column) {
        return (n.convert(n.load(0, a), type) - parameter(n, 2, row, type)) *
               (n.convert(n.load(3, b), type) - parameter(n, 5, column, type));
      },
      [&](Scalar row, Scalar column, Scalar sum) {
        Scalar scale = parameter(n, 1, row, DataType::F32) *
                       parameter(n, 4, column, DataType::F32) /
                       parameter(n, 6, row, DataType::F32);
        return quantized(n, n.convert(sum, DataType::F32) * scale,
                         parameter(n, 7, row, DataType::I32),
                         n.operand(n.out()).type);
      });
}

bool sumsInI32(const NodeSpec &spec) {
  return rt::bytesOf(spec.inputs[0].type) == 1;
}

//===----------------------------------------------------------------------===//
// Gemm
//===----------------------------------------------------------------------===//

struct Gemm {
  bool transA, transB;
  Scalar rows, inner, columns;
  explicit Gemm(NodeBuilder &n)
      : transA(n.integer("transA", 0)), transB(n.integer("transB", 0)) {
    rows = n.size(0, transA ? 1 : 0);
    inner = n.size(0, transA ? 0 : 1);
    columns = n.size(1, transB ? 0 : 1);
  }
};

/// B as it stands, and C a row or a matrix whose columns are known to be those
/// of the result.
bool isBlockedGemm(NodeBuilder &n) {
  if (!areFloats(n) || n.integer("transB", 0))
    return false;
  if (!n.has(2))
    return true;
  const int64_t columns = n.operand(1).sizes[1];
  return n.rank(2) > 0 && columns > 0 && n.operand(2).sizes.back() == columns &&
         (n.rank(2) == 1 || n.operand(2).sizes[0] >= 0);
}

void shapeGemm(NodeBuilder &n) {
  Gemm g(n);
  n.require(n.size(1, g.transB ? 1 : 0) == g.inner, rt::kGraphSizes);
  if (n.has(2)) {
    // C goes to the result's sizes, not the other way round.
    Scalars all = n.broadcastSizes({n.sizes(2), {g.rows, g.columns}});
    n.require((all[0] == g.rows) & (all[1] == g.columns), rt::kGraphSizes);
  }
  shapeOf(n, 0, {g.rows, g.columns});
  if (isBlockedGemm(n))
    n.setTiles(matrixTiles(n, g.rows, g.columns));
}

void computeBlockedGemm(NodeBuilder &n) {
  Gemm g(n);
  KernelBuilder &k = n.k;
  const double alpha = n.number("alpha", 1), beta = n.number("beta", 1);
  const VectorType lanes = k.vec(kLanes, k.f32());
  n.loop({&n, k.begin, DataType::I64}, {&n, k.end, DataType::I64},
         [&](Scalar tile) {
           MatrixTile part = matrixTile(n, tile, g.rows, g.columns);
           Matrix matrix;
           matrix.rows = part.rows;
           matrix.columns = part.columns;
           matrix.inner = g.inner;
           Scalar step = g.inner * 4.0;
           matrix.aRow = g.transA ? n.index(4) : step;
           matrix.aInner = g.transA ? g.rows * 4.0 : n.index(4);
           matrix.bInner = matrix.cRow = g.columns * 4.0;
           matrix.a = n.address(0, g.transA ? part.row : part.row * g.inner);
           matrix.b = n.address(1, part.column);
           matrix.c = n.address(n.out(), part.row * g.columns + part.column);
           matrix.finish = [&](Value sums, Scalar row, Scalar column) {
             if (alpha != 1)
               sums = k.fmul(sums, k.fcst(lanes, alpha));
             if (!n.has(2))
               return sums;
             Scalar at = part.column + column;
             if (n.rank(2) == 2 && n.operand(2).sizes[0] != 1)
               at = at + (part.row + row) * g.columns;
             Value c = k.load(lanes, n.address(2, at));
             if (beta != 1)
               c = k.fmul(c, k.fcst(lanes, beta));
             return k.fadd(sums, c);
           };
           emitMatrix(n, matrix);
         });
}

void computeGemm(NodeBuilder &n) {
  if (isBlockedGemm(n))
    return computeBlockedGemm(n);
  Gemm g(n);
  const double alpha = n.number("alpha", 1), beta = n.number("beta", 1);
  const DataType type = sumType(n);
  // Rows of both, as linear layers of PyTorch are exported.
  const bool rowsOfBoth = g.transB && !g.transA && areFloats(n);
  n.gather([&](State at) {
    Scalar sum =
        rowsOfBoth
            ? dotProduct(n, n.address(0, at[0] * g.inner),
                         n.address(1, at[1] * g.inner), g.inner)
            : n.sum(n.index(0), g.inner, n.constant(type, 0), [&](Scalar k) {
                Scalar a =
                    n.load(0, g.transA ? Scalars{k, at[0]} : Scalars{at[0], k});
                Scalar b =
                    n.load(1, g.transB ? Scalars{at[1], k} : Scalars{k, at[1]});
                return a * b;
              });
    // Integers take whole factors only.
    if (alpha != 1)
      sum = sum * alpha;
    if (!n.has(2))
      return sum;
    Scalars from;
    for (size_t d = 0; d < n.rank(2); ++d)
      from.push_back(
          select(n.size(2, d) == 1, n.index(0), at[d + 2 - n.rank(2)]));
    Scalar c = n.load(2, from);
    return sum + (beta != 1 ? c * beta : c);
  });
}

//===----------------------------------------------------------------------===//
// Einsum
//===----------------------------------------------------------------------===//

/// An equation, its ellipses replaced by labels of their own ('0', '1', ...).
struct Equation {
  std::vector<std::string> inputs;
  std::string output;
  std::string summed; ///< labels that the output does not have

  explicit Equation(const NodeBuilder &n) {
    std::string text;
    for (char c : n.text("equation", ""))
      if (c != ' ')
        text += c;
    const size_t arrow = text.find("->");
    std::string left = text.substr(0, arrow);
    size_t hidden = 0;
    for (size_t i = 0, at = 0; i < n.inputs(); ++i) {
      const size_t comma = std::min(left.find(',', at), left.size());
      inputs.push_back(left.substr(at, comma - at));
      at = comma + 1;
      if (inputs[i].find("...") != std::string::npos)
        hidden = std::max(hidden, n.rank(i) - (inputs[i].size() - 3));
    }
    auto expand = [&](std::string labels, size_t count) {
      std::string dots;
      for (size_t d = hidden - count; d < hidden; ++d)
        dots += char('0' + d);
      if (size_t at = labels.find("..."); at != std::string::npos)
        labels.replace(at, 3, dots);
      return labels;
    };
    for (size_t i = 0; i < inputs.size(); ++i)
      inputs[i] = expand(
          inputs[i], n.rank(i) + 3 - std::min(n.rank(i) + 3, inputs[i].size()));
    if (arrow != std::string::npos) {
      output = expand(text.substr(arrow + 2), hidden);
    } else {
      // Labels that come once, in order, after those of the ellipsis.
      std::map<char, int> times;
      for (const std::string &labels : inputs)
        for (char label : labels)
          ++times[label];
      for (auto [label, count] : times)
        if (count == 1 || (label >= '0' && label <= '9'))
          output += label;
    }
    for (const std::string &labels : inputs)
      for (char label : labels)
        if (output.find(label) == std::string::npos &&
            summed.find(label) == std::string::npos)
          summed += label;
  }
};

/// How far a label goes; sizes of 1 stretch.
std::map<char, Scalar> labelSizes(NodeBuilder &n, const Equation &equation,
                                  bool check) {
  std::map<char, Scalar> sizes;
  for (size_t i = 0; i < n.inputs(); ++i)
    for (size_t d = 0; d < n.rank(i); ++d) {
      Scalar own = n.size(i, d);
      auto [known, fresh] = sizes.emplace(equation.inputs[i][d], own);
      if (fresh)
        continue;
      if (check)
        n.require((own == known->second) | (own == 1) | (known->second == 1),
                  rt::kGraphSizes);
      known->second = select(own == 1, known->second, own);
    }
  return sizes;
}

void shapeEinsum(NodeBuilder &n) {
  Equation equation(n);
  auto sizes = labelSizes(n, equation, true);
  Scalars result;
  for (char label : equation.output)
    result.push_back(sizes[label]);
  shapeOf(n, 0, result);
}

void computeEinsum(NodeBuilder &n) {
  Equation equation(n);
  auto sizes = labelSizes(n, equation, false);
  const DataType type = sumType(n);
  n.gather([&](State at) {
    std::map<char, Scalar> places;
    for (size_t d = 0; d < at.size(); ++d)
      places[equation.output[d]] = at[d];
    Scalars extents;
    for (char label : equation.summed)
      extents.push_back(sizes[label]);
    return n.box(extents, {n.constant(type, 0)}, [&](State inner, State state) {
      for (size_t s = 0; s < inner.size(); ++s)
        places[equation.summed[s]] = inner[s];
      Scalar product;
      for (size_t i = 0; i < n.inputs(); ++i) {
        Scalars from;
        for (size_t d = 0; d < n.rank(i); ++d)
          from.push_back(select(n.size(i, d) == 1, n.index(0),
                                places[equation.inputs[i][d]]));
        Scalar factor = n.load(i, from);
        product = product ? product * factor : factor;
      }
      return Scalars{state[0] + n.convert(product, type)};
    })[0];
  });
}

/// An equation that names every dimension of every input.
bool fitsEquation(const NodeSpec &spec) {
  auto text = spec.attributes.getAs<StringAttr>("equation");
  if (!text)
    return false;
  SmallVector<StringRef> inputs;
  text.getValue().split("->").first.split(inputs, ',');
  if (inputs.size() != spec.inputs.size())
    return false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::string labels = inputs[i].str();
    llvm::erase(labels, ' ');
    const bool open = StringRef(labels).contains("...");
    const size_t rank = spec.inputs[i].rank();
    if (open ? labels.size() - 3 > rank : labels.size() != rank)
      return false;
  }
  return true;
}

void shapeDet(NodeBuilder &n) {
  Scalars result = n.sizes(0);
  n.require(result.back() == result[result.size() - 2], rt::kGraphSizes);
  n.setScratch(result.back() * result.back() * 8);
  result.resize(result.size() - 2);
  shapeOf(n, 0, result);
}

/// By elimination with pivots, in f64.
void computeDet(NodeBuilder &n) {
  Scalar size = n.size(0, n.rank(0) - 1);
  auto place = [&](Scalar row, Scalar column) {
    return (row * size + column) * 8;
  };
  auto at = [&](Scalar row, Scalar column) {
    return n.loadScratch(DataType::F64, place(row, column));
  };
  auto [first, last] = n.range(n.count(n.out()));
  n.loop(first, last, [&](Scalar i) {
    n.loop(n.index(0), size * size, [&](Scalar e) {
      n.storeScratch(e * 8,
                     n.convert(n.load(0, i * size * size + e), DataType::F64));
    });
    Scalar result = n.loop(
        n.index(0), size, {n.constant(DataType::F64, 1)},
        [&](Scalar column, State state) -> Scalars {
          auto pivot = n.loop(
              column + 1, size, {column},
              [&](Scalar row, State best) -> Scalars {
                return {select(abs(at(row, column)) > abs(at(best[0], column)),
                               row, best[0])};
              })[0];
          n.loop(column, size, [&](Scalar c) {
            Scalar upper = at(column, c), lower = at(pivot, c);
            n.storeScratch(place(column, c), lower);
            n.storeScratch(place(pivot, c), upper);
          });
          Scalar value = at(column, column);
          n.loop(column + 1, size, [&](Scalar row) {
            Scalar factor = at(row, column) / value;
            n.loop(column, size, [&](Scalar c) {
              n.storeScratch(place(row, c),
                             select(value == 0, at(row, c),
                                    at(row, c) - factor * at(column, c)));
            });
          });
          Scalar signedValue = select(pivot == column, value, -value);
          return {state[0] * signedValue};
        })[0];
    n.store(n.out(), i, n.convert(result, n.operand(0).type));
  });
}

constexpr Operator kTable[] = {
    {"MatMul", shapeMatMul, computeMatMul, kHeavyGrain},
    {"Gemm", shapeGemm, computeGemm, kHeavyGrain},
    {"MatMulInteger", shapeMatMulInteger, computeMatMulInteger, kHeavyGrain,
     [](const NodeSpec &spec) {
       return rt::bytesOf(spec.inputs[0].type) == 1 &&
              rt::bytesOf(spec.inputs[1].type) == 1;
     }},
    {"QLinearMatMul", shapeQLinearMatMul, computeQLinearMatMul, kHeavyGrain,
     sumsInI32},
    {"Einsum", shapeEinsum, computeEinsum, kHeavyGrain, fitsEquation},
    {"Det", shapeDet, computeDet, kHeavyGrain},
};
} // namespace

OperatorTable isthmus::productOperators() { return kTable; }
