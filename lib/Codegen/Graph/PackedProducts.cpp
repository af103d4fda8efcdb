//===- PackedProducts.cpp - products by packed matrices -------------------===//
//
// What graph-pack-products makes of products by constants, whose matrices are
// packed when the bundle is written (GraphPacking.h): of f32 for fused
// multiply-adds, of bytes for their dot products (DotProducts.h). Bytes without
// sign have 128 taken off on both sides; zero points and sums of rows and
// columns make up for it, so that sums are those of MatMulInteger. Sums of f32
// are in the order of Matrix.h: packing changes no bit of them.
//
//===----------------------------------------------------------------------===//
#include "../Kernels/DotProducts.h"
#include "Matrix.h"
#include "isthmus/Weights/GraphPacking.h"
#include "isthmus/runtime/Error.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace isthmus;

namespace {
using Scalars = NodeBuilder::Scalars;
using State = ArrayRef<Scalar>;
using Values = KernelBuilder::Values;

constexpr int64_t kQuad = kGraphQuad;
static_assert(kLanes == kGraphPanel);
/// What is taken off bytes without sign.
constexpr int64_t kOffset = 128;
/// Inputs of a step.
constexpr int64_t kStep = 64;
/// Panels that a row takes by itself.
constexpr int64_t kPanelsOfOne = 4;

constexpr int64_t panelsOf(int64_t columns) {
  return (columns + kLanes - 1) / kLanes;
}

/// Throws unless an input has the sizes that the pass gives it.
void requireSizes(NodeBuilder &n, size_t input,
                  const std::vector<int64_t> &sizes) {
  if (n.operand(input).sizes != sizes)
    throw rt::Error("{}: input {} is not what graph-pack-products makes",
                    n.spec.op, input);
}

/// A parameter of 16 columns: each has its own, or all have one.
Value lanesOf(NodeBuilder &n, size_t input, Scalar column, DataType type) {
  const std::vector<int64_t> &sizes = n.operand(input).sizes;
  if (llvm::all_of(sizes, [](int64_t size) { return size == 1; }))
    return n.k.splat(n.convert(n.load(input, n.index(0)), type).value, kLanes);
  return loadLanes(n, n.address(input, column), n.operand(input).type, type);
}

//===----------------------------------------------------------------------===//
// Floats: x, packed, bias
//===----------------------------------------------------------------------===//

class PackedFloats {
public:
  explicit PackedFloats(NodeBuilder &n)
      : n(n), k(n.k), inputs(n.integer("rows", 0)),
        columns(n.integer("columns", 0)),
        panelsAtOnce(k.target.schedule.floatPanels) {}

  void shape() {
    requireSizes(n, 1, {panelsOf(columns), inputs, kLanes});
    Scalars sizes = n.sizes(0);
    n.require(sizes.back() == double(inputs), rt::kGraphSizes);
    if (n.has(2))
      n.require((n.count(2) == 1) | (n.count(2) == double(columns)),
                rt::kGraphSizes);
    sizes.back() = n.index(columns);
    shapeOf(n, 0, sizes);
    n.setTiles(matrixTiles(n, rows(), n.index(columns)));
  }

  void compute() {
    Scalar all = rows();
    n.loop({&n, k.begin, DataType::I64}, {&n, k.end, DataType::I64},
           [&](Scalar tile) {
             MatrixTile part = matrixTile(n, tile, all, n.index(columns));
             Scalar panels =
                 (part.columns + double(kLanes - 1)) / double(kLanes);
             Scalar groups = panels / double(panelsAtOnce),
                    first = part.column / double(kLanes);
             n.loop(n.index(0), groups, [&](Scalar group) {
               multiplyPanels(part, first + group * double(panelsAtOnce),
                              panelsAtOnce);
             });
             n.loop(groups * double(panelsAtOnce), panels, [&](Scalar panel) {
               multiplyPanels(part, first + panel, 1);
             });
           });
  }

private:
  NodeBuilder &n;
  KernelBuilder &k;
  const int64_t inputs, columns, panelsAtOnce;

  Scalar rows() { return n.count(0) / double(std::max<int64_t>(inputs, 1)); }

  /// As many rows at once as registers hold; of those that are left a few, and
  /// single ones.
  void multiplyPanels(const MatrixTile &part, Scalar panel, int64_t panels) {
    Scalar done = n.index(0);
    for (int64_t count :
         {k.target.schedule.floatRows, int64_t(4), int64_t(1)}) {
      Scalar blocks = (part.rows - done) / double(count);
      n.loop(n.index(0), blocks, [&](Scalar block) {
        multiplyRows(part, done + block * double(count), count, panel, panels);
      });
      done = done + blocks * double(count);
    }
  }

  void multiplyRows(const MatrixTile &part, Scalar row, int64_t count,
                    Scalar panel, int64_t panels) {
    const int64_t panelBytes = inputs * kLanes * 4;
    const VectorType lanes = k.vec(kLanes, k.f32());
    Value weights = n.address(1, panel * double(inputs * kLanes));
    Values x;
    for (int64_t r = 0; r < count; ++r)
      x.push_back(n.address(0, (part.row + row + double(r)) * double(inputs)));
    Values sums = k.loop(
        k.cst(0), k.cst(inputs), 1,
        Values(size_t(count * panels), k.fcst(lanes, 0)),
        [&](Value i, ValueRange state) {
          Values next(state.begin(), state.end());
          Value at = k.ptr(weights, k.mul(i, kLanes * 4)), own = k.mul(i, 4);
          Values loaded;
          for (int64_t p = 0; p < panels; ++p)
            loaded.push_back(k.load(lanes, at, p * panelBytes));
          for (int64_t r = 0; r < count; ++r) {
            Value factor =
                k.splat(k.load(k.f32(), k.ptr(x[size_t(r)], own)), kLanes);
            for (int64_t p = 0; p < panels; ++p) {
              Value &sum = next[size_t(r * panels + p)];
              sum = k.fma(factor, loaded[size_t(p)], sum);
            }
          }
          return next;
        });
    for (int64_t r = 0; r < count; ++r)
      for (int64_t p = 0; p < panels; ++p) {
        Scalar column = (panel + double(p)) * double(kLanes);
        Value result = sums[size_t(r * panels + p)];
        if (n.has(2))
          result = k.fadd(result, lanesOf(n, 2, column, DataType::F32));
        storeLanes(
            n, result,
            n.address(n.out(),
                      (part.row + row + double(r)) * double(columns) + column),
            n.index(columns) - column);
      }
  }
};

void shapePackedMatMul(NodeBuilder &n) { PackedFloats(n).shape(); }
void computePackedMatMul(NodeBuilder &n) { PackedFloats(n).compute(); }

//===----------------------------------------------------------------------===//
// Integers: x, packed, sums of columns, zero point of x, of the matrix, scale,
// bias
//===----------------------------------------------------------------------===//

class PackedIntegers {
public:
  explicit PackedIntegers(NodeBuilder &n)
      : n(n), k(n.k), inputs(n.integer("rows", 0)),
        columns(n.integer("columns", 0)),
        padded((inputs + kStep - 1) / kStep * kStep),
        layout{PackedFormat::Int8, columns, padded, /*oneScale=*/false,
               ByteRange::All},
        unsignedX(n.operand(0).type == DataType::U8) {}

  /// Rows of all matrices of x are one after another.
  Scalar rows() { return n.count(0) / double(std::max<int64_t>(inputs, 1)); }

  void shape() {
    requireSizes(
        n, 1, {panelsOf(columns), (inputs + kQuad - 1) / kQuad, kLanes, kQuad});
    requireSizes(n, 2, {columns});
    Scalars sizes = n.sizes(0);
    n.require(sizes.back() == double(inputs), rt::kGraphSizes);
    for (size_t input : {3, 4, 5, 6})
      if (n.has(input))
        n.require((n.count(input) == 1) | (n.count(input) == double(columns)),
                  rt::kGraphSizes);
    sizes.back() = n.index(columns);
    shapeOf(n, 0, sizes);
    n.setTiles(matrixTiles(n, rows(), n.index(columns)));
    n.setScratch(n.index(kMatrixRows * (padded + kSumBytes)));
  }

  void compute() {
    Scalar all = rows();
    n.loop({&n, k.begin, DataType::I64}, {&n, k.end, DataType::I64},
           [&](Scalar tile) {
             MatrixTile part = matrixTile(n, tile, all, n.index(columns));
             n.loop(n.index(0), part.rows,
                    [&](Scalar row) { prepareRow(part.row + row, row); });
             Scalar first = part.column / double(kLanes);
             Scalar panels =
                 (part.columns + double(kLanes - 1)) / double(kLanes);
             Scalar done = n.index(0);
             for (int64_t count = k.target.schedule.wholeRows; count >= 1;
                  count = count > kFewRows ? count / 2 : int64_t(count > 1)) {
               multiply(part, done, count, first, panels);
               done = done + (part.rows - done) / double(count) * double(count);
             }
           });
  }

private:
  static constexpr int64_t kSumBytes = 4;
  /// Fewer are taken one by one.
  static constexpr int64_t kFewRows = 8;
  NodeBuilder &n;
  KernelBuilder &k;
  const int64_t inputs, columns, padded;
  const PackedLayout layout;
  const bool unsignedX;

  Value rowAt(Scalar row) {
    return k.ptr(k.scratch, (row * double(padded)).value);
  }
  Value sumAt(Scalar row) {
    return k.ptr(
        k.scratch,
        (row * double(kSumBytes) + double(kMatrixRows * padded)).value);
  }

  /// Copies a row with signs, and zeros behind it, and adds it up.
  void prepareRow(Scalar from, Scalar to) {
    const VectorType bytes = k.vec(kLanes, k.i8()),
                     wide = k.vec(kLanes, k.i32());
    Value source = n.address(0, from * double(inputs)), target = rowAt(to);
    const int64_t whole = inputs / kLanes * kLanes;
    auto withSign = [&](Value value) -> Value {
      if (!unsignedX)
        return value;
      return arith::XOrIOp::create(k.b, k.loc, value,
                                   k.cst(value.getType(), -kOffset));
    };
    Values sums =
        k.loop(k.cst(0), k.cst(whole), kLanes, {k.cst(wide, 0)},
               [&](Value i, ValueRange state) -> Values {
                 Value value = withSign(k.load(bytes, k.ptr(source, i)));
                 k.store(value, k.ptr(target, i));
                 return {k.add(state[0], arith::ExtSIOp::create(k.b, k.loc,
                                                                wide, value))};
               });
    Values sum = k.loop(
        k.cst(whole), k.cst(inputs), 1,
        {vector::ReductionOp::create(k.b, k.loc, vector::CombiningKind::ADD,
                                     sums[0])},
        [&](Value i, ValueRange state) -> Values {
          Value value = withSign(k.load(k.i8(), k.ptr(source, i)));
          k.store(value, k.ptr(target, i));
          return {k.add(state[0],
                        arith::ExtSIOp::create(k.b, k.loc, k.i32(), value))};
        });
    k.loop(k.cst(inputs), k.cst(padded), 1,
           [&](Value i) { k.store(k.cst(k.i8(), 0), k.ptr(target, i)); });
    k.store(sum[0], sumAt(to));
  }

  /// The rows from `from` on, `count` at once, as far as there are so many:
  /// several panels at once, then what is left of them.
  void multiply(const MatrixTile &part, Scalar from, int64_t count,
                Scalar first, Scalar panels) {
    const int64_t most =
        count == 1 ? kPanelsOfOne : k.target.schedule.wholePanels;
    Scalar blocks = (part.rows - from) / double(count), done = n.index(0);
    for (int64_t group : {most, int64_t(1)}) {
      Scalar groups = (panels - done) / double(group);
      n.loop(n.index(0), groups, [&](Scalar g) {
        n.loop(n.index(0), blocks, [&](Scalar block) {
          multiplyRows(part, from + block * double(count), count,
                       first + done + g * double(group), group);
        });
      });
      if (group == 1)
        return;
      done = done + groups * double(group);
    }
  }

  void multiplyRows(const MatrixTile &part, Scalar row, int64_t count,
                    Scalar panel, int64_t panels) {
    // Of the packed matrix.
    const int64_t stored = (inputs + kQuad - 1) / kQuad * kQuad;
    Value weights = n.address(1, panel * double(stored * kLanes));
    Values rows, matrices, sums, rowSums, starts;
    for (int64_t r = 0; r < count; ++r) {
      Scalar own = row + double(r);
      rows.push_back(rowAt(own));
      rowSums.push_back(k.load(k.i32(), sumAt(own)));
      starts.push_back(emitDotStart(k, layout, size_t(count), [&] {
        return k.mul(rowSums.back(), k.cst(k.i32(), -kOffset));
      }));
    }
    for (int64_t p = 0; p < panels; ++p) {
      matrices.push_back(k.ptr(weights, p * stored * kLanes));
      llvm::append_range(sums, starts);
    }
    // Of the panels that come next: each is too short a stream for hardware
    // prefetchers, and few rows leave no time to wait for it.
    sums = emitLongDot(k, layout, stored, matrices, rows, sums,
                       [&](Value at, int64_t step) {
                         if (usesTiles(k.target, layout.format, count))
                           return;
                         for (Value matrix : matrices)
                           k.prefetch(k.ptr(k.ptr(matrix, k.mul(at, kLanes)),
                                            panels * stored * kLanes),
                                      kLanes * step);
                       });
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t r = 0; r < count; ++r)
        finish(part, row + double(r), panel + double(p),
               sums[size_t(p * count + r)], rowSums[size_t(r)]);
  }

  /// (x - zx)(w - zw) = x w - zx w - zw x + zx zw, with 128 taken off zero
  /// points too.
  void finish(const MatrixTile &part, Scalar row, Scalar panel, Value sums,
              Value rowSum) {
    const VectorType ints = k.vec(kLanes, k.i32());
    Scalar column = panel * double(kLanes);
    Scalar zero = n.has(3) ? n.convert(n.load(3, n.index(0)), DataType::I32)
                           : n.constant(DataType::I32, 0);
    if (unsignedX)
      zero = zero - double(kOffset);
    Value xZero = k.splat(zero.value, kLanes);
    Value columnSums = k.load(ints, n.address(2, column));
    sums = k.sub(sums, k.mul(xZero, columnSums));
    const bool unsignedW = n.integer("unsigned", 0) != 0;
    if (n.has(4) || unsignedW) {
      Value wZero =
          n.has(4) ? lanesOf(n, 4, column, DataType::I32) : k.cst(ints, 0);
      if (unsignedW)
        wZero = k.sub(wZero, k.cst(ints, kOffset));
      Value others =
          k.sub(k.splat(rowSum, kLanes), k.mul(xZero, k.cst(ints, inputs)));
      sums = k.sub(sums, k.mul(wZero, others));
    }
    Value result = sums;
    if (n.has(5)) {
      const VectorType floats = k.vec(kLanes, k.f32());
      result = k.fmul(arith::SIToFPOp::create(k.b, k.loc, floats, sums),
                      lanesOf(n, 5, column, DataType::F32));
      if (n.has(6))
        result = k.fadd(result, lanesOf(n, 6, column, DataType::F32));
    }
    storeLanes(n, result,
               n.address(n.out(), (part.row + row) * double(columns) + column),
               n.index(columns) - column);
  }
};

void shapePackedMatMulInteger(NodeBuilder &n) { PackedIntegers(n).shape(); }
void computePackedMatMulInteger(NodeBuilder &n) { PackedIntegers(n).compute(); }

constexpr Operator kTable[] = {
    {"isthmus.PackedMatMul", shapePackedMatMul, computePackedMatMul,
     kHeavyGrain},
    {"isthmus.PackedMatMulInteger", shapePackedMatMulInteger,
     computePackedMatMulInteger, kHeavyGrain},
};
} // namespace

OperatorTable isthmus::packedProductOperators() { return kTable; }
