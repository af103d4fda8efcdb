//===- RowWise.cpp - kernels that work on one row at a time ---------------===//
#include "RowWise.h"

#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <array>

using namespace mlir;
using namespace isthmus;

/// Runs `body(row)` for each tile of the launch.
static void forEachRow(KernelBuilder &k,
                       const std::function<void(Value)> &body) {
  k.loop(k.begin, k.end, 1, body);
}

static Value rowPtr(KernelBuilder &k, Value base, Value row, int64_t rowBytes) {
  return k.ptr(base, k.mul(row, rowBytes));
}

Value isthmus::largestMagnitude(KernelBuilder &k,
                                const KernelBuilder::Values &values) {
  auto abs = [&](Value v) { return math::AbsFOp::create(k.b, k.loc, v); };
  Value magnitudes = abs(values[0]);
  for (Value v : llvm::drop_begin(values))
    magnitudes = k.fmax(magnitudes, abs(v));
  return k.reduceMax(magnitudes);
}

Scaling isthmus::scalingFor(KernelBuilder &k, Value largest, double most) {
  Value usable = arith::CmpFOp::create(k.b, k.loc, arith::CmpFPredicate::OGT,
                                       largest, k.fcst(k.f32(), 1e-30));
  Value factor = arith::SelectOp::create(k.b, k.loc, usable,
                                         k.fdiv(k.fcst(k.f32(), most), largest),
                                         k.fcst(k.f32(), 0.0));
  return {k.fmul(largest, k.fcst(k.f32(), 1.0 / most)), factor};
}

void isthmus::storeQuantizedGroup(KernelBuilder &k, Value row, Value group,
                                  const QRowsLayout &layout,
                                  const KernelBuilder::Values &values) {
  auto [scale, factor] = scalingFor(k, largestMagnitude(k, values), 127.0);
  Value factors = k.splat(factor, kLanes);
  Value at = k.ptr(row, k.mul(group, layout.group()));
  KernelBuilder::Values sums; // of 32 values, one a lane or two
  for (auto [i, v] : llvm::enumerate(values)) {
    Value q = k.roundedBits(k.fmul(v, factors));
    if (i % 2 == 0)
      sums.push_back(q);
    else
      sums.back() = k.add(sums.back(), q);
    k.store(arith::TruncIOp::create(k.b, k.loc, k.vec(kLanes, k.i8()), q), at,
            int64_t(i) * kLanes);
  }
  Value entry = k.ptr(row, k.mul(group, 4));
  Value sumEntry = k.ptr(row, k.mul(group, 4 * int64_t(sums.size()))), total;
  for (auto [i, lanes] : llvm::enumerate(sums)) {
    Value sum = vector::ReductionOp::create(k.b, k.loc,
                                            vector::CombiningKind::ADD, lanes);
    sum = k.add(sum, k.cst(k.i32(), KernelBuilder::roundedBias(32)));
    total = total ? k.add(total, sum) : sum;
    k.store(k.fmul(scale, arith::SIToFPOp::create(k.b, k.loc, k.f32(), sum)),
            sumEntry, layout.scaledSumOffset() + 4 * int64_t(i));
  }
  k.store(scale, entry, layout.scaleOffset());
  k.store(arith::MulIOp::create(k.b, k.loc, total, k.cst(k.i32(), -128)), entry,
          layout.correctionOffset());
}

/// Writes a row of results. `compute(offset)` gives 16 values at byte `offset`
/// of an f32 row.
static void writeRow(KernelBuilder &k, Value y, Value row, int64_t features,
                     RowFormat format,
                     const std::function<Value(Value)> &compute) {
  Value out = rowPtr(k, y, row, rowBytes(format, features));
  if (format != RowFormat::Int8) {
    k.loop(k.cst(0), k.cst(features * 4), kLanes * 4, [&](Value offset) {
      if (format == RowFormat::BF16)
        k.storeBF16(compute(offset), k.ptr(out, k.div(offset, 2)));
      else
        k.store(compute(offset), k.ptr(out, offset));
    });
    return;
  }
  QRowsLayout layout{features};
  k.loop(k.cst(0), k.cst(layout.groups()), 1, [&](Value group) {
    Value offset = k.mul(group, layout.group() * 4);
    KernelBuilder::Values values;
    for (int64_t i = 0; i < layout.group(); i += kLanes)
      values.push_back(compute(k.add(offset, i * 4)));
    storeQuantizedGroup(k, out, group, layout, values);
  });
}

void isthmus::emitRMSNorm(KernelBuilder &k, const NormSpec &spec) {
  Value x = k.operand(0), weight = k.operand(1), y = k.operand(2);
  VectorType lanes = k.vec(kLanes, k.f32());
  forEachRow(k, [&](Value row) {
    Value in = rowPtr(k, x, row, floatRowBytes(spec.features));
    Value squares = k.loop(
        k.cst(0), k.cst(spec.features * 4), kLanes * 4, {k.zeros(kLanes)},
        [&](Value offset, ValueRange state) -> KernelBuilder::Values {
          Value v = k.load(lanes, k.ptr(in, offset));
          return {k.fma(v, v, state[0])};
        })[0];
    Value mean =
        k.fdiv(k.reduceAdd(squares), k.fcst(k.f32(), double(spec.features)));
    Value root = math::SqrtOp::create(
        k.b, k.loc, k.fadd(mean, k.fcst(k.f32(), spec.epsilon)));
    Value inverse = k.splat(k.fdiv(k.fcst(k.f32(), 1.0), root), kLanes);
    writeRow(k, y, row, spec.features, spec.result, [&](Value offset) {
      Value v = k.fmul(k.load(lanes, k.ptr(in, offset)), inverse);
      return k.fmul(v, k.load(lanes, k.ptr(weight, offset)));
    });
  });
}

Value isthmus::emitSiluMul(KernelBuilder &k, Value gate, Value up) {
  Value negated = arith::NegFOp::create(k.b, k.loc, gate);
  Value one = k.fcst(gate.getType(), 1.0);
  return k.fmul(k.fdiv(gate, k.fadd(one, k.exp(negated))), up);
}

void isthmus::emitSiluMul(KernelBuilder &k, int64_t features,
                          RowFormat result) {
  Value gate = k.operand(0), up = k.operand(1), y = k.operand(2);
  VectorType lanes = k.vec(kLanes, k.f32());
  forEachRow(k, [&](Value row) {
    Value g = rowPtr(k, gate, row, floatRowBytes(features));
    Value u = rowPtr(k, up, row, floatRowBytes(features));
    writeRow(k, y, row, features, result, [&](Value offset) {
      return emitSiluMul(k, k.load(lanes, k.ptr(g, offset)),
                         k.load(lanes, k.ptr(u, offset)));
    });
  });
}

void isthmus::emitQuantizeRows(KernelBuilder &k, int64_t features,
                               RowFormat result) {
  Value x = k.operand(0), y = k.operand(1);
  forEachRow(k, [&](Value row) {
    Value in = rowPtr(k, x, row, floatRowBytes(features));
    writeRow(k, y, row, features, result, [&](Value offset) {
      return k.load(k.vec(kLanes, k.f32()), k.ptr(in, offset));
    });
  });
}

void isthmus::emitAdd(KernelBuilder &k, int64_t features) {
  Value a = k.operand(0), b = k.operand(1), y = k.operand(2);
  VectorType lanes = k.vec(kLanes, k.f32());
  forEachRow(k, [&](Value row) {
    Value left = rowPtr(k, a, row, floatRowBytes(features));
    Value right = rowPtr(k, b, row, floatRowBytes(features));
    writeRow(k, y, row, features, RowFormat::F32, [&](Value offset) {
      return k.fadd(k.load(lanes, k.ptr(left, offset)),
                    k.load(lanes, k.ptr(right, offset)));
    });
  });
}

void isthmus::emitSelectRows(KernelBuilder &k, int64_t features) {
  Value x = k.operand(0), y = k.operand(1);
  Value outputRows = k.stepField(rt::kStepOutputRows, /*isPointer=*/true);
  forEachRow(k, [&](Value row) {
    Value source = k.toI64(k.load(k.i32(), rowPtr(k, outputRows, row, 4)));
    Value in = rowPtr(k, x, source, floatRowBytes(features));
    writeRow(k, y, row, features, RowFormat::F32, [&](Value offset) {
      return k.load(k.vec(kLanes, k.f32()), k.ptr(in, offset));
    });
  });
}

void isthmus::emitEmbedding(KernelBuilder &k, const PackedLayout &table) {
  Value weights = k.operand(0), y = k.operand(1);
  Value ids = k.stepField(rt::kStepIds, /*isPointer=*/true);
  forEachRow(k, [&](Value row) {
    Value id = k.toI64(k.load(k.i32(), rowPtr(k, ids, row, 4)));
    Value panel =
        rowPtr(k, weights, k.div(id, PackedLayout::kPanel), table.panelBytes());
    Value lane = k.rem(id, PackedLayout::kPanel);
    Value out = rowPtr(k, y, row, floatRowBytes(table.inputs));
    // A table row lies across the panel; a lookup gathers it value by value.
    k.loop(k.cst(0), k.cst(table.inputs), 1, [&](Value i) {
      Value value;
      switch (table.format) {
      case PackedFormat::F32:
      case PackedFormat::F16: {
        bool half = table.format == PackedFormat::F16;
        Value at =
            k.ptr(panel, k.mul(k.add(k.mul(i, kLanes), lane), half ? 2 : 4));
        value = k.load(half ? k.f16() : k.f32(), at);
        if (half)
          value = arith::ExtFOp::create(k.b, k.loc, k.f32(), value);
        break;
      }
      case PackedFormat::BF16: {
        Value pair = k.ptr(rowPtr(k, panel, k.div(i, 2), kLanes * 4),
                           k.add(k.mul(lane, 4), k.mul(k.rem(i, 2), 2)));
        value = k.fromBF16(
            arith::ExtUIOp::create(k.b, k.loc, k.i32(), k.load(k.i16(), pair)));
        break;
      }
      case PackedFormat::Int8:
      case PackedFormat::Int4: {
        bool int4 = table.format == PackedFormat::Int4;
        Value block =
            k.ptr(rowPtr(k, panel, k.div(i, table.group()), table.blockBytes()),
                  table.panelHeaderBytes());
        Value j = k.rem(i, table.group());
        Value inBlock = int4 ? k.rem(j, PackedLayout::kInt4Group / 2) : j;
        Value byte = k.load(
            k.i8(),
            k.ptr(block, k.add(k.mul(k.div(inBlock, 4), 64),
                               k.add(k.mul(lane, 4), k.rem(inBlock, 4)))));
        Value integer = arith::ExtSIOp::create(k.b, k.loc, k.i32(), byte);
        auto toFloat = [&](Value v) -> Value {
          return arith::SIToFPOp::create(k.b, k.loc, k.f32(), v);
        };
        if (!int4) {
          Value scale =
              k.load(k.f16(), k.ptr(block, k.mul(lane, 2)), table.valueBytes());
          value = k.fmul(toFloat(integer),
                         arith::ExtFOp::create(k.b, k.loc, k.f32(), scale));
          break;
        }
        Value shift = arith::TruncIOp::create(
            k.b, k.loc, k.i32(),
            k.mul(k.div(j, PackedLayout::kInt4Group / 2), 4));
        integer = arith::AndIOp::create(
            k.b, k.loc, arith::ShRUIOp::create(k.b, k.loc, integer, shift),
            k.cst(k.i32(), 15));
        Value at = k.ptr(block, lane), factors = k.ptr(panel, k.mul(lane, 4));
        Value scale = toFloat(arith::ExtUIOp::create(
            k.b, k.loc, k.i32(), k.load(k.i8(), at, table.valueBytes())));
        Value offset = toFloat(arith::ExtSIOp::create(
            k.b, k.loc, k.i32(),
            k.load(k.i8(), at, table.valueBytes() + kLanes)));
        value = k.fma(toFloat(integer), k.fmul(scale, k.load(k.f32(), factors)),
                      k.fmul(offset, k.load(k.f32(), factors, kLanes * 4)));
        break;
      }
      }
      k.store(value, k.ptr(out, k.mul(i, 4)));
    });
  });
}
