//===- Matrix.cpp - products of matrices that are not packed --------------===//
#include "Matrix.h"

#include "../Kernels/DotProducts.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace isthmus;

namespace {
using Values = KernelBuilder::Values;

/// Vectors of a row by itself.
constexpr int64_t kVectorsOfOne = 4;

class MatrixEmitter {
public:
  MatrixEmitter(NodeBuilder &n, const Matrix &m)
      : n(n), k(n.k), m(m), element(m.pairs ? Type(k.i32()) : Type(k.f32())),
        lanes(k.vec(kLanes, element)) {}

  /// As many rows of C at once, and vectors of each, as registers hold sums; of
  /// the rows that are left a few, and single ones with more vectors.
  void emit() {
    const KernelSchedule &schedule = k.target.schedule;
    Scalar done = n.index(0);
    for (int64_t count : {schedule.floatRows, int64_t(4)}) {
      Scalar blocks = (m.rows - done) / double(count);
      n.loop(n.index(0), blocks, [&](Scalar block) {
        emitRows(done + block * double(count), count, schedule.floatPanels);
      });
      done = done + blocks * double(count);
    }
    n.loop(done, m.rows, [&](Scalar row) { emitRows(row, 1, kVectorsOfOne); });
  }

private:
  NodeBuilder &n;
  KernelBuilder &k;
  const Matrix &m;
  const Type element;
  const VectorType lanes;

  void emitRows(Scalar row, int64_t rows, int64_t vectors) {
    const auto width = double(vectors * kLanes);
    Scalar blocks = m.columns / width;
    n.loop(n.index(0), blocks, [&](Scalar block) {
      emitBlock(row, rows, block * width, vectors, false);
    });
    Scalar start = blocks * width;
    Scalar left = (m.columns - start + double(kLanes - 1)) / double(kLanes);
    n.loop(n.index(0), left, [&](Scalar block) {
      emitBlock(row, rows, start + block * double(kLanes), 1, true);
    });
  }

  Value offset(Value base, Scalar bytes) { return k.ptr(base, bytes.value); }

  void emitBlock(Scalar row, int64_t rows, Scalar column, int64_t vectors,
                 bool partial) {
    Value b = offset(m.b, column * 4.0);
    Values a;
    for (int64_t r = 0; r < rows; ++r)
      a.push_back(offset(m.a, (row + double(r)) * m.aRow));
    Value zero = m.pairs ? k.cst(lanes, 0) : k.fcst(lanes, 0);
    Values sums =
        k.loop(k.cst(0), m.inner.value, 1, Values(size_t(rows * vectors), zero),
               [&](Value i, ValueRange state) {
                 Values next(state.begin(), state.end());
                 Scalar index{&n, i, DataType::I64};
                 Value bAt = offset(b, index * m.bInner);
                 Values columns;
                 for (int64_t v = 0; v < vectors; ++v)
                   columns.push_back(k.load(lanes, bAt, v * kLanes * 4));
                 for (int64_t r = 0; r < rows; ++r) {
                   Value at = offset(a[size_t(r)], index * m.aInner);
                   Value factor = k.splat(k.load(element, at), kLanes);
                   for (int64_t v = 0; v < vectors; ++v) {
                     Value &sum = next[size_t(r * vectors + v)];
                     sum = m.pairs
                               ? emitWordDot(k, factor, columns[size_t(v)], sum)
                               : k.fma(factor, columns[size_t(v)], sum);
                   }
                 }
                 return next;
               });
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t v = 0; v < vectors; ++v) {
        Scalar at = column + double(v * kLanes), own = row + double(r);
        Value result = sums[size_t(r * vectors + v)];
        if (m.finish)
          result = m.finish(result, own, at);
        Value to = offset(m.c, own * m.cRow + at * 4.0);
        if (partial)
          storeLanes(n, result, to, m.columns - at);
        else
          k.store(result, to);
      }
  }
};
} // namespace

void isthmus::storeLanes(NodeBuilder &n, Value vector, Value to, Scalar count) {
  KernelBuilder &k = n.k;
  VectorType indices = k.vec(kLanes, k.i64());
  SmallVector<int64_t> numbers;
  for (int64_t i = 0; i < kLanes; ++i)
    numbers.push_back(i);
  Value places = arith::ConstantOp::create(
      k.b, k.loc, DenseElementsAttr::get(indices, ArrayRef(numbers)));
  Value mask = arith::CmpIOp::create(k.b, k.loc, arith::CmpIPredicate::slt,
                                     places, k.splat(count.value, kLanes));
  LLVM::MaskedStoreOp::create(k.b, k.loc, vector, to, mask, 4);
}

Value isthmus::loadLanes(NodeBuilder &n, Value address, DataType stored,
                         DataType type) {
  KernelBuilder &k = n.k;
  if (rt::bytesOf(stored) == 4)
    return k.load(
        k.vec(kLanes, type == DataType::F32 ? Type(k.f32()) : Type(k.i32())),
        address);
  Value bytes = k.load(k.vec(kLanes, k.i8()), address);
  VectorType wide = k.vec(kLanes, k.i32());
  return stored == DataType::U8
             ? Value(arith::ExtUIOp::create(k.b, k.loc, wide, bytes))
             : Value(arith::ExtSIOp::create(k.b, k.loc, wide, bytes));
}

Scalar isthmus::dotProduct(NodeBuilder &n, Value a, Value b, Scalar count) {
  KernelBuilder &k = n.k;
  const VectorType lanes = k.vec(kLanes, k.f32());
  constexpr int64_t kBytes = kLanes * 4;
  Value blocks = k.div(count.value, kLanes);
  auto sums = k.loop(k.cst(0), blocks, 1, {k.zeros(kLanes)},
                     [&](Value i, ValueRange state) -> Values {
                       Value at = k.mul(i, kBytes);
                       return {k.fma(k.load(lanes, k.ptr(a, at)),
                                     k.load(lanes, k.ptr(b, at)), state[0])};
                     });
  auto rest =
      k.loop(k.mul(blocks, kLanes), count.value, 1, {k.reduceAdd(sums[0])},
             [&](Value i, ValueRange state) -> Values {
               Value at = k.mul(i, 4);
               return {k.fma(k.load(k.f32(), k.ptr(a, at)),
                             k.load(k.f32(), k.ptr(b, at)), state[0])};
             });
  return {&n, rest[0], DataType::F32};
}

Scalar isthmus::wordOf(NodeBuilder &n, Scalar first, Scalar second) {
  return (first & n.integerConstant(DataType::I32, 0xffff)) |
         second * double(1 << 16);
}

void isthmus::emitMatrix(NodeBuilder &n, const Matrix &matrix) {
  MatrixEmitter(n, matrix).emit();
}

static Scalar blocksOf(Scalar count, int64_t block) {
  return (count + double(block - 1)) / double(block);
}

Scalar isthmus::matrixTiles(NodeBuilder &, Scalar rows, Scalar columns) {
  return blocksOf(rows, kMatrixRows) * blocksOf(columns, kMatrixColumns);
}

MatrixTile isthmus::matrixTile(NodeBuilder &, Scalar tile, Scalar rows,
                               Scalar columns) {
  Scalar across = max(blocksOf(columns, kMatrixColumns), 1);
  Scalar down = tile / across;
  MatrixTile result;
  result.row = down * double(kMatrixRows);
  result.column = (tile - down * across) * double(kMatrixColumns);
  result.rows = min(rows - result.row, double(kMatrixRows));
  result.columns = min(columns - result.column, double(kMatrixColumns));
  return result;
}
