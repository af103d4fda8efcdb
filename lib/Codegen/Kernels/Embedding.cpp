//===- Embedding.cpp - rows of a table ------------------------------------===//
#include "isthmus/Codegen/Kernels.h"
#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace isthmus;

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
  case PackedFormat::Int8:
  case PackedFormat::Int4: {
    bool int4 = table.format == PackedFormat::Int4;
    Value group = k.div(i, table.group());
    Value values = k.ptr(k.ptr(panel, k.mul(group, table.valueBytes())),
                         table.valuesOffset());
    Value factors = k.ptr(k.ptr(panel, k.mul(group, table.factorBytes())),
                          table.factorsOffset());
    Value j = k.rem(i, table.group());
    Value inBlock = int4 ? k.rem(j, PackedLayout::kInt4Group / 2) : j;
    Value byte = k.load(
        k.i8(), k.ptr(values, k.add(k.mul(k.div(inBlock, 4), 64),
                                    k.add(k.mul(lane, 4), k.rem(inBlock, 4)))));
    Value integer = arith::ExtSIOp::create(k.b, k.loc, k.i32(), byte);
    auto toFloat = [&](Value v) -> Value {
      return arith::SIToFPOp::create(k.b, k.loc, k.f32(), v);
    };
    Value ofRow = k.ptr(panel, k.mul(lane, 4));
    if (!int4 && table.oneScale)
      return k.fmul(toFloat(integer), k.load(k.f32(), ofRow));
    if (!int4) {
      Value scale = k.load(k.f16(), k.ptr(factors, k.mul(lane, 2)));
      return k.fmul(toFloat(integer),
                    arith::ExtFOp::create(k.b, k.loc, k.f32(), scale));
    }
    Value shift = arith::TruncIOp::create(
        k.b, k.loc, k.i32(), k.mul(k.div(j, PackedLayout::kInt4Group / 2), 4));
    integer = arith::AndIOp::create(
        k.b, k.loc, arith::ShRUIOp::create(k.b, k.loc, integer, shift),
        k.cst(k.i32(), 15));
    if (table.oneScale) {
      Value pair = k.ptr(factors, k.mul(lane, 2));
      auto factor = [&](int64_t offset) -> Value {
        return arith::ExtSIOp::create(k.b, k.loc, k.i32(),
                                      k.load(k.i8(), pair, offset));
      };
      Value steps = arith::MulIOp::create(
          k.b, k.loc, k.add(integer, k.cst(k.i32(), -8)), factor(0));
      return k.fmul(toFloat(k.add(steps, factor(1))), k.load(k.f32(), ofRow));
    }
    Value at = k.ptr(factors, lane);
    Value scale = toFloat(
        arith::ExtUIOp::create(k.b, k.loc, k.i32(), k.load(k.i8(), at)));
    Value offset = toFloat(arith::ExtSIOp::create(k.b, k.loc, k.i32(),
                                                  k.load(k.i8(), at, kLanes)));
    return k.fma(toFloat(integer), k.fmul(scale, k.load(k.f32(), ofRow)),
                 k.fmul(offset, k.load(k.f32(), ofRow, kLanes * 4)));
  }
  }
  llvm_unreachable("unknown format");
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
