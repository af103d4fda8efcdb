//===- Linear.cpp - matrix products ---------------------------------------===//
//
// A tile is a panel of 16 outputs. The number of rows decides the shape of the
// inner loop: one row takes several panels at once, to have enough independent
// sums in flight; many rows take one panel and as many rows as the registers
// hold. Each output has one accumulator and K runs upwards in all of them, so
// that a row's result does not depend on its company.
//
//===----------------------------------------------------------------------===//
#include "DotProducts.h"
#include "isthmus/Codegen/Kernels.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace isthmus;

namespace {
using Values = KernelBuilder::Values;

class LinearEmitter {
public:
  LinearEmitter(KernelBuilder &k, const LinearSpec &spec)
      : k(k), layout(spec.weight),
        quantized(layout.format == PackedFormat::Int8 ||
                  layout.format == PackedFormat::Int4),
        xRowBytes(quantized ? QRowsLayout{layout.inputs}.rowBytes()
                            : floatRowBytes(layout.inputs)),
        yRowBytes(floatRowBytes(layout.outputs)) {
    unsigned index = 0;
    x = k.operand(index++);
    weight = k.operand(index++);
    if (spec.bias)
      bias = k.operand(index++);
    if (spec.residual)
      residual = k.operand(index++);
    y = k.operand(index++);
  }

  void emit() {
    Value rows = k.rowCount();
    k.ifElse(
        k.equal(rows, k.cst(1)), [&] { emitOneRow(); },
        [&] { emitManyRows(rows); });
  }

private:
  KernelBuilder &k;
  const PackedLayout &layout;
  bool quantized;
  int64_t xRowBytes, yRowBytes;
  Value x, weight, bias, residual, y;

  static constexpr int64_t kPanelsAtOnce = 4;

  void emitOneRow() {
    Value count = k.sub(k.end, k.begin);
    Value full =
        k.add(k.begin, k.mul(k.div(count, kPanelsAtOnce), kPanelsAtOnce));
    Value row = k.cst(0);
    k.loop(k.begin, full, kPanelsAtOnce,
           [&](Value tile) { emitBlock(tile, kPanelsAtOnce, row, 1); });
    k.loop(full, k.end, 1, [&](Value tile) { emitBlock(tile, 1, row, 1); });
  }

  void emitManyRows(Value rows) {
    int64_t block = quantized ? k.target.dotRows : k.target.floatRows;
    Value full = k.mul(k.div(rows, block), block);
    k.loop(k.begin, k.end, 1, [&](Value tile) {
      k.loop(k.cst(0), full, block,
             [&](Value row) { emitBlock(tile, 1, row, block); });
      k.loop(full, rows, 1, [&](Value row) { emitBlock(tile, 1, row, 1); });
    });
  }

  /// `panels` x `rows` outputs; accumulators are indexed [panel * rows + row].
  void emitBlock(Value tile, int64_t panels, Value firstRow, int64_t rows) {
    Values w, xs;
    for (int64_t p = 0; p < panels; ++p)
      w.push_back(k.ptr(weight, k.mul(k.add(tile, p), layout.panelBytes())));
    for (int64_t r = 0; r < rows; ++r)
      xs.push_back(k.ptr(x, k.mul(k.add(firstRow, r), xRowBytes)));
    Values acc = quantized ? sumGroups(w, xs) : sumFloats(w, xs);
    for (int64_t p = 0; p < panels; ++p) {
      Value column = k.mul(k.add(tile, p), kLanes * 4);
      for (int64_t r = 0; r < rows; ++r) {
        Value sum = acc[p * rows + r];
        Value offset = k.add(k.mul(k.add(firstRow, r), yRowBytes), column);
        VectorType lanes = k.vec(kLanes, k.f32());
        if (bias)
          sum = k.fadd(sum, k.load(lanes, k.ptr(bias, column)));
        if (residual)
          sum = k.fadd(sum, k.load(lanes, k.ptr(residual, offset)));
        k.store(sum, k.ptr(y, offset));
      }
    }
  }

  Values sumFloats(const Values &w, const Values &xs) {
    int64_t unroll = layout.inputs % 4 == 0 ? 4 : 1;
    bool half = layout.format == PackedFormat::F16;
    int64_t vectorBytes = kLanes * (half ? 2 : 4);
    Values inits(w.size() * xs.size(), k.zeros(kLanes));
    return k.loop(
        k.cst(0), k.cst(layout.inputs), unroll, inits,
        [&](Value i, ValueRange state) {
          Values acc(state);
          for (int64_t u = 0; u < unroll; ++u) {
            Values columns;
            for (Value panel : w) {
              Value at = k.ptr(panel, k.mul(i, vectorBytes));
              Value column = k.load(k.vec(kLanes, half ? k.f16() : k.f32()), at,
                                    u * vectorBytes);
              if (half)
                column = arith::ExtFOp::create(k.b, k.loc,
                                               k.vec(kLanes, k.f32()), column);
              columns.push_back(column);
            }
            for (auto [r, row] : llvm::enumerate(xs)) {
              Value value = k.splat(
                  k.load(k.f32(), k.ptr(row, k.mul(i, 4)), 4 * u), kLanes);
              for (auto [p, column] : llvm::enumerate(columns)) {
                Value &sum = acc[p * xs.size() + r];
                sum = k.fma(value, column, sum);
              }
            }
          }
          return acc;
        });
  }

  Values sumGroups(const Values &w, const Values &xs) {
    QRowsLayout qrows{layout.inputs};
    bool int4 = layout.format == PackedFormat::Int4;
    Values inits(w.size() * xs.size(), k.zeros(kLanes));
    return k.loop(
        k.cst(0), k.cst(qrows.groups()), 1, inits,
        [&](Value group, ValueRange state) {
          Values acc(state), values, scales, sums;
          for (Value row : xs) {
            values.push_back(k.ptr(row, k.mul(group, PackedLayout::kGroup)));
            Value at = k.ptr(row, k.mul(group, 4));
            scales.push_back(
                k.splat(k.load(k.f32(), at, qrows.scaleOffset()), kLanes));
            sums.push_back(k.load(k.i32(), at, qrows.sumOffset()));
          }
          for (auto [p, panel] : llvm::enumerate(w)) {
            Value block = k.ptr(k.ptr(panel, k.mul(group, layout.blockBytes())),
                                layout.panelHeaderBytes());
            Values dots = emitGroupDot(k, block, int4, values, sums);
            GroupFactors factors = loadFactors(panel, block);
            for (auto [r, dot] : llvm::enumerate(dots)) {
              Value product = toFloat(dot);
              Value &sum = acc[p * xs.size() + r];
              if (!int4) {
                sum = k.fma(product, k.fmul(factors.scale, scales[r]), sum);
                continue;
              }
              Value total =
                  k.splat(arith::SIToFPOp::create(k.b, k.loc, k.f32(), sums[r]),
                          kLanes);
              Value inGroup =
                  k.fma(product, factors.scale, k.fmul(factors.offset, total));
              sum = k.fma(inGroup, scales[r], sum);
            }
          }
          return acc;
        });
  }

  /// What turns a group's integer sums into values, for 16 outputs.
  struct GroupFactors {
    Value scale, offset; ///< offset: int4 only
  };

  Value toFloat(Value integers) {
    return arith::SIToFPOp::create(k.b, k.loc, k.vec(kLanes, k.f32()),
                                   integers);
  }

  GroupFactors loadFactors(Value panel, Value block) {
    VectorType floats = k.vec(kLanes, k.f32()), ints = k.vec(kLanes, k.i32());
    if (layout.format == PackedFormat::Int8) {
      Value half = k.load(k.vec(kLanes, k.f16()), block, layout.valueBytes());
      return {arith::ExtFOp::create(k.b, k.loc, floats, half), nullptr};
    }
    VectorType bytes = k.vec(kLanes, k.i8());
    Value scale = k.load(bytes, block, layout.valueBytes());
    Value offset = k.load(bytes, block, layout.valueBytes() + kLanes);
    scale = toFloat(arith::ExtUIOp::create(k.b, k.loc, ints, scale));
    offset = toFloat(arith::ExtSIOp::create(k.b, k.loc, ints, offset));
    return {k.fmul(scale, k.load(floats, panel)),
            k.fmul(offset, k.load(floats, panel, kLanes * 4))};
  }
};
} // namespace

void isthmus::emitLinear(KernelBuilder &k, const LinearSpec &spec) {
  LinearEmitter(k, spec).emit();
}
