//===- Embedding.cpp - rows of a table ------------------------------------===//
#include "isthmus/Codegen/Kernels.h"
#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace isthmus;

/// As loadEntry, of an integer format.
static Value loadInteger(KernelBuilder &k, const PackedLayout &table,
                         Value panel, Value lane, Value i) {
  const bool nibbles = hasNibbles(table.format);
  const int64_t half = table.group() / 2, bits = bitsOf(table.format) - 4;
  Value group = k.div(i, table.group()), j = k.rem(i, table.group());
  Value values = k.ptr(k.ptr(panel, k.mul(group, table.valueBytes())),
                       table.valuesOffset());
  Value factors = k.ptr(k.ptr(panel, k.mul(group, table.factorBytes())),
                        table.factorsOffset());
  auto extend = [&](Value v, bool isSigned) -> Value {
    if (isSigned)
      return arith::ExtSIOp::create(k.b, k.loc, k.i32(), v);
    return arith::ExtUIOp::create(k.b, k.loc, k.i32(), v);
  };
  auto toFloat = [&](Value v) -> Value {
    return arith::SIToFPOp::create(k.b, k.loc, k.f32(), v);
  };
  auto loadHalf = [&](Value at, int64_t offset) -> Value {
    return arith::ExtFOp::create(k.b, k.loc, k.f32(),
                                 k.load(k.f16(), at, offset));
  };
  auto loadByte = [&](Value at, int64_t offset, bool isSigned) {
    return extend(k.load(k.i8(), at, offset), isSigned);
  };
  /// `count` bits of `v` from bit `first`, a value of the index type, on.
  auto bitsFrom = [&](Value v, Value first, int64_t count) -> Value {
    Value shift = arith::TruncIOp::create(k.b, k.loc, k.i32(), first);
    return arith::AndIOp::create(k.b, k.loc,
                                 arith::ShRUIOp::create(k.b, k.loc, v, shift),
                                 k.cst(k.i32(), (int64_t(1) << count) - 1));
  };
  Value inBlock = nibbles ? k.rem(j, half) : j;
  Value ofQuad = k.add(k.mul(lane, 4), k.rem(j, 4));
  Value integer = loadByte(
      k.ptr(values, k.add(k.mul(k.div(inBlock, 4), 64), ofQuad)), 0, true);
  if (nibbles)
    integer = bitsFrom(integer, k.mul(k.div(j, half), 4), 4);
  if (nibbles && bits > 0) {
    Value byte = loadByte(k.ptr(values, ofQuad),
                          PackedLayout::kPanel * table.group() / 2, false);
    Value upper = bitsFrom(byte, k.mul(k.div(j, 4), bits), bits);
    integer = k.add(
        integer, arith::MulIOp::create(k.b, k.loc, upper, k.cst(k.i32(), 16)));
  }
  if (table.zero() != 0)
    integer = k.add(integer, k.cst(k.i32(), -table.zero()));

  Value ofRow = k.ptr(panel, k.mul(lane, 4)), byteAt = k.ptr(factors, lane);
  Value halfAt = k.ptr(factors, k.mul(lane, 2));
  Value superAt =
      k.ptr(k.ptr(panel, k.mul(k.div(i, kSuperBlock), table.superBytes())),
            k.mul(lane, 2));
  Value scale, offset;
  switch (table.format) {
  case PackedFormat::Int4:
    if (table.oneScale) {
      Value steps =
          arith::MulIOp::create(k.b, k.loc, k.add(integer, k.cst(k.i32(), -8)),
                                loadByte(halfAt, 0, true));
      return k.fmul(toFloat(k.add(steps, loadByte(halfAt, 1, true))),
                    k.load(k.f32(), ofRow));
    }
    scale = k.fmul(toFloat(loadByte(byteAt, 0, false)), k.load(k.f32(), ofRow));
    offset = k.fmul(toFloat(loadByte(byteAt, kLanes, true)),
                    k.load(k.f32(), ofRow, kLanes * 4));
    break;
  case PackedFormat::Q4_K:
  case PackedFormat::Q5_K:
    scale = k.fmul(toFloat(loadByte(byteAt, 0, false)), loadHalf(superAt, 0));
    offset = k.fmul(toFloat(loadByte(byteAt, kLanes, true)),
                    loadHalf(superAt, kLanes * 2));
    break;
  case PackedFormat::Q6_K:
    scale = k.fmul(toFloat(loadByte(byteAt, 0, true)), loadHalf(superAt, 0));
    break;
  case PackedFormat::Q4_1:
  case PackedFormat::Q5_1:
    scale = loadHalf(halfAt, 0);
    offset = loadHalf(halfAt, kLanes * 2);
    break;
  default:
    scale = table.oneScale ? k.load(k.f32(), ofRow) : loadHalf(halfAt, 0);
  }
  return offset ? k.fma(toFloat(integer), scale, offset)
                : k.fmul(toFloat(integer), scale);
}

/// Value `i` of the table row that is lane `lane` of a panel, as f32.
static Value loadEntry(KernelBuilder &k, const PackedLayout &table, Value panel,
                       Value lane, Value i) {
  switch (table.format) {
  case PackedFormat::F32:
  case PackedFormat::F16: {
    bool half = table.format == PackedFormat::F16;
    Value at = k.ptr(panel, k.mul(k.add(k.mul(i, kLanes), lane), half ? 2 : 4));
    Value value = k.load(half ? k.f16() : k.f32(), at);
    return half ? Value(arith::ExtFOp::create(k.b, k.loc, k.f32(), value))
                : value;
  }
  case PackedFormat::BF16: {
    Value pair = k.ptr(k.ptr(panel, k.mul(k.div(i, 2), kLanes * 4)),
                       k.add(k.mul(lane, 4), k.mul(k.rem(i, 2), 2)));
    return k.fromBF16(
        arith::ExtUIOp::create(k.b, k.loc, k.i32(), k.load(k.i16(), pair)));
  }
  default:
    return loadInteger(k, table, panel, lane, i);
  }
}

/// Calls `use(row, i, value)` for each value of the table rows that `indices`,
/// a field of the step, gives for the launch's rows. A table row lies across
/// its panel: a lookup gathers it value by value.
static void forEachEntry(KernelBuilder &k, const PackedLayout &table,
                         Value weights, rt::StepField indices,
                         const std::function<void(Value, Value, Value)> &use) {
  Value field = k.stepField(indices, /*isPointer=*/true);
  k.loop(k.begin, k.end, 1, [&](Value row) {
    Value index = k.toI64(k.load(k.i32(), k.ptr(field, k.mul(row, 4))));
    Value panel = k.ptr(
        weights, k.mul(k.div(index, PackedLayout::kPanel), table.panelBytes()));
    Value lane = k.rem(index, PackedLayout::kPanel);
    k.loop(k.cst(0), k.cst(table.inputs), 1,
           [&](Value i) { use(row, i, loadEntry(k, table, panel, lane, i)); });
  });
}

void isthmus::emitEmbedding(KernelBuilder &k, const PackedLayout &table) {
  Value y = k.operand(1);
  const int64_t rowBytes = floatRowBytes(table.inputs);
  forEachEntry(k, table, k.operand(0), rt::kStepIds,
               [&](Value row, Value i, Value value) {
                 Value at = k.add(k.mul(row, rowBytes), k.mul(i, 4));
                 k.store(value, k.ptr(y, at));
               });
}

void isthmus::emitPositionEmbedding(KernelBuilder &k,
                                    const PackedLayout &table) {
  Value x = k.operand(0), y = k.operand(2);
  const int64_t rowBytes = floatRowBytes(table.inputs);
  forEachEntry(k, table, k.operand(1), rt::kStepPositions,
               [&](Value row, Value i, Value value) {
                 Value at = k.add(k.mul(row, rowBytes), k.mul(i, 4));
                 k.store(k.fadd(k.load(k.f32(), k.ptr(x, at)), value),
                         k.ptr(y, at));
               });
}
