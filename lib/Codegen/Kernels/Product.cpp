//===- Product.cpp - the sums inside matrix products ----------------------===//
#include "Product.h"

#include "DotProducts.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace isthmus;

Product::Product(KernelBuilder &k, const PackedLayout &weight)
    : k(k), layout(weight), format(rowFormatFor(weight.format)) {}

int64_t Product::rowBytes() const {
  return isthmus::rowBytes(format, layout.inputs);
}

int64_t Product::rowsAtOnce() const {
  return format == RowFormat::Int8 ? k.target.dotRows : k.target.floatRows;
}

int64_t Product::panelsAtOnce() const {
  return format == RowFormat::Int8 ? 1 : k.target.floatPanels;
}

void Product::forEachBlock(Value rows,
                           const std::function<void(Value, int64_t)> &body) {
  Value from = k.cst(0);
  for (int64_t count = rowsAtOnce(); count >= 1; count /= 2) {
    Value to = k.add(from, k.mul(k.div(k.sub(rows, from), count), count));
    k.loop(from, to, count, [&](Value row) { body(row, count); });
    from = to;
  }
}

Product::Values Product::sums(const Values &panels, const Values &rows,
                              int64_t ahead) {
  return format == RowFormat::Int8 ? sumGroups(panels, rows, ahead)
                                   : sumFloats(panels, rows, ahead);
}

/// With one row memory sets the pace, and a panel is too short a stream for the
/// hardware to run ahead of: fetch what lies at the same place in the panels
/// that come next, or further on in this one where that would be too far.
void Product::prefetchAhead(Value at, int64_t bytes, int64_t ahead,
                            size_t rows) {
  constexpr int64_t kFarthest = 64 << 10, kNear = 2 << 10;
  if (rows > 1)
    return;
  int64_t distance = ahead * layout.panelBytes();
  k.prefetch(k.ptr(at, distance <= kFarthest ? distance : kNear), bytes);
}

Product::Values Product::sumFloats(const Values &w, const Values &xs,
                                   int64_t ahead) {
  // Of activations four bytes at a time: a value, or a pair of bf16.
  const bool pairs = format == RowFormat::BF16;
  const bool half = layout.format == PackedFormat::F16;
  const int64_t count = pairs ? layout.inputs / 2 : layout.inputs;
  const int64_t unroll = count % 4 == 0 ? 4 : 1;
  const int64_t vectorBytes = kLanes * (half ? 2 : 4);
  Type element = pairs ? k.i32() : k.f32();
  auto loadColumn = [&](Value at, int64_t offset) -> Value {
    if (!half)
      return k.load(k.vec(kLanes, element), at, offset);
    return arith::ExtFOp::create(k.b, k.loc, k.vec(kLanes, k.f32()),
                                 k.load(k.vec(kLanes, k.f16()), at, offset));
  };
  Values inits(w.size() * xs.size(), k.zeros(kLanes));
  return k.loop(
      k.cst(0), k.cst(count), unroll, inits, [&](Value i, ValueRange state) {
        Values acc(state);
        for (int64_t u = 0; u < unroll; ++u) {
          Values columns;
          for (Value panel : w) {
            Value at = k.ptr(panel, k.mul(i, vectorBytes));
            if (u == 0)
              prefetchAhead(at, unroll * vectorBytes, ahead, xs.size());
            columns.push_back(loadColumn(at, u * vectorBytes));
          }
          for (auto [r, row] : llvm::enumerate(xs)) {
            Value value = k.splat(
                k.load(element, k.ptr(row, k.mul(i, 4)), 4 * u), kLanes);
            for (auto [p, column] : llvm::enumerate(columns)) {
              Value &sum = acc[p * xs.size() + r];
              sum = pairs ? emitPairDot(k, value, column, sum)
                          : k.fma(value, column, sum);
            }
          }
        }
        return acc;
      });
}

Product::Values Product::sumGroups(const Values &w, const Values &xs,
                                   int64_t ahead) {
  QRowsLayout qrows{layout.inputs};
  bool int4 = layout.format == PackedFormat::Int4;
  Values inits(w.size() * xs.size(), k.zeros(kLanes));
  return k.loop(
      k.cst(0), k.cst(qrows.groups()), 1, inits,
      [&](Value group, ValueRange state) {
        Values acc(state), values, scales, scaledSums, sums;
        for (Value row : xs) {
          values.push_back(k.ptr(row, k.mul(group, PackedLayout::kGroup)));
          Value at = k.ptr(row, k.mul(group, 4));
          auto splat = [&](int64_t offset) {
            return k.splat(k.load(k.f32(), at, offset), kLanes);
          };
          scales.push_back(splat(qrows.scaleOffset()));
          if (int4)
            scaledSums.push_back(splat(qrows.scaledSumOffset()));
          sums.push_back(k.load(k.i32(), at, qrows.sumOffset()));
        }
        for (auto [p, panel] : llvm::enumerate(w)) {
          Value block = k.ptr(k.ptr(panel, k.mul(group, layout.blockBytes())),
                              layout.panelHeaderBytes());
          prefetchAhead(block, layout.blockBytes(), ahead, xs.size());
          Values dots = emitGroupDot(k, block, int4, values, sums);
          GroupFactors factors = loadFactors(panel, block);
          for (auto [r, dot] : llvm::enumerate(dots)) {
            Value &sum = acc[p * xs.size() + r];
            sum = k.fma(k.fmul(toFloat(dot), factors.scale), scales[r], sum);
            if (int4)
              sum = k.fma(factors.offset, scaledSums[r], sum);
          }
        }
        return acc;
      });
}

Value Product::toFloat(Value integers) {
  return arith::SIToFPOp::create(k.b, k.loc, k.vec(kLanes, k.f32()), integers);
}

Product::GroupFactors Product::loadFactors(Value panel, Value block) {
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
