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

void Product::forEachChunk(int64_t outputTiles,
                           const std::function<void(const Chunk &)> &body) {
  Value tiles = k.cst(outputTiles), most = k.cst(productRowsPerTile(layout));
  Value last = k.div(k.add(k.end, outputTiles - 1), outputTiles);
  k.loop(k.div(k.begin, outputTiles), last, 1, [&](Value chunk) {
    Value base = k.mul(chunk, outputTiles), row = k.mul(chunk, most);
    body({k.sub(k.max(k.begin, base), base), k.min(k.sub(k.end, base), tiles),
          row, k.min(k.add(row, most), k.rowCount())});
  });
}

void Product::forEachBlock(const Chunk &chunk,
                           const std::function<void(Value, int64_t)> &body) {
  Value from = chunk.firstRow;
  for (int64_t count = rowsAtOnce(); count >= 1; count /= 2) {
    Value left = k.sub(chunk.lastRow, from);
    Value to = k.add(from, k.mul(k.div(left, count), count));
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
  const QRowsLayout qrows{layout.inputs};
  const bool int4 = layout.format == PackedFormat::Int4;
  const int64_t blocks = qrows.group() / layout.group(); // of a group of a row
  // A group is taken in parts, unrolled where the registers allow: not where
  // one row takes several panels.
  const bool unroll = k.target.unrollGroups && xs.size() > 1;
  const int64_t inputs = unroll ? layout.group() : PackedLayout::kInt4Group;
  const int64_t parts = qrows.group() / inputs, sums = w.size() * xs.size();
  const int64_t partBytes =
      layout.valueBytes() / layout.group() * inputs +
      (int4 ? layout.blockBytes() - layout.valueBytes() : 0);

  return k.loop(
      k.cst(0), k.cst(qrows.groups()), 1, Values(sums, k.zeros(kLanes)),
      [&](Value group, ValueRange totals) {
        Values blockOf; // the group's first, in each panel
        for (Value panel : w)
          blockOf.push_back(
              k.ptr(k.ptr(panel, k.mul(group, blocks * layout.blockBytes())),
                    layout.panelHeaderBytes()));
        auto splat = [&](Value row, int64_t entry, Value index) {
          return k.splat(k.load(k.f32(), k.ptr(row, k.mul(index, 4)), entry),
                         kLanes);
        };
        // int8: integer sums of the group. int4: those of each block, scaled
        // and added; then the totals, which offsets are added to.
        Values state;
        auto start = [&](Value row) {
          if (int4)
            return unroll ? Value() : k.zeros(kLanes);
          return emitDotStart(k, layout, [&] {
            return k.load(k.i32(), k.ptr(row, k.mul(group, 4)),
                          qrows.correctionOffset());
          });
        };
        for (size_t p = 0; p < w.size(); ++p)
          for (Value row : xs)
            state.push_back(start(row));
        state.append(totals.begin(), totals.end());
        auto addPart = [&](Value part, Values out) -> Values {
          Values values, scaledSums;
          Value index = k.add(k.mul(group, parts), part);
          for (Value row : xs) {
            values.push_back(k.ptr(row, k.mul(index, inputs)));
            if (int4)
              scaledSums.push_back(splat(row, qrows.scaledSumOffset(), index));
          }
          for (auto [p, first] : llvm::enumerate(blockOf)) {
            Value block = k.ptr(first, k.mul(part, partBytes));
            prefetchAhead(block, partBytes, ahead, xs.size());
            Values dots;
            for (size_t r = 0; r < xs.size(); ++r)
              dots.push_back(int4 ? emitDotStart(k, layout, {})
                                  : out[p * xs.size() + r]);
            dots = emitGroupDot(k, layout, inputs, block, values, dots);
            if (!int4) {
              std::copy(dots.begin(), dots.end(),
                        out.begin() + ptrdiff_t(p * xs.size()));
              continue;
            }
            GroupFactors factors = loadFactors(w[p], block);
            for (auto [r, dot] : llvm::enumerate(dots)) {
              Value &scaled = out[p * xs.size() + r];
              Value &total = out[size_t(sums) + p * xs.size() + r];
              // (A zero of the other sign does not reach the total.)
              scaled = scaled ? k.fma(toFloat(dot), factors.scale, scaled)
                              : k.fmul(toFloat(dot), factors.scale);
              total = k.fma(factors.offset, scaledSums[r], total);
            }
          }
          return out;
        };
        if (unroll)
          for (int64_t part = 0; part < parts; ++part)
            state = addPart(k.cst(part), state);
        else
          state = k.loop(k.cst(0), k.cst(parts), 1, state,
                         [&](Value part, ValueRange in) {
                           return addPart(part, Values(in));
                         });
        Values scales, out;
        for (Value row : xs)
          scales.push_back(splat(row, qrows.scaleOffset(), group));
        for (auto [p, block] : llvm::enumerate(blockOf)) {
          Value factor = int4 ? Value() : loadFactors(w[p], block).scale;
          for (size_t r = 0; r < xs.size(); ++r) {
            Value scaled = state[p * xs.size() + r];
            if (!int4)
              scaled = k.fmul(toFloat(scaled), factor);
            out.push_back(k.fma(scaled, scales[r],
                                state[size_t(sums) + p * xs.size() + r]));
          }
        }
        return out;
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
