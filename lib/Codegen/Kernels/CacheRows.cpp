//===- CacheRows.cpp - a step's rows in the paged cache -------------------===//
#include "CacheRows.h"

#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace isthmus;

CacheRows::CacheRows(KernelBuilder &k)
    : k(k), positions(k.stepField(rt::kStepPositions, /*isPointer=*/true)),
      sequences(k.stepField(rt::kStepSequence, /*isPointer=*/true)),
      pageTables(k.stepField(rt::kStepPageTables, /*isPointer=*/true)),
      pageStride(k.stepField(rt::kStepPageStride, /*isPointer=*/false)) {}

Value CacheRows::entry(Value array, Value index) {
  return k.toI64(k.load(k.i32(), k.ptr(array, k.mul(index, 4))));
}

Value CacheRows::position(Value row) { return entry(positions, row); }

Value CacheRows::sequence(Value row) { return entry(sequences, row); }

Value CacheRows::pages(Value row) {
  return k.ptr(pageTables, k.mul(k.mul(sequence(row), pageStride), 4));
}

Value CacheRows::pageOffset(const KVLayout &layout, Value table, Value index) {
  Value page = entry(table, index);
  return k.add(k.mul(k.div(page, rt::kPartitionPages), layout.groupBytes()),
               k.mul(k.rem(page, rt::kPartitionPages), layout.keysStride()));
}

Value CacheRows::follows(Value first, Value second) {
  Value same = k.equal(sequence(second), sequence(first));
  Value next = k.equal(position(second), k.add(position(first), 1));
  return arith::AndIOp::create(k.b, k.loc, same, next);
}

Value CacheRows::runEnd(Value first, Value end) {
  Value second = k.add(first, 1);
  return k.loop(second, end, 1, {second},
                [&](Value row, ValueRange reached) -> KernelBuilder::Values {
                  Value isNext = arith::AndIOp::create(
                      k.b, k.loc, k.equal(row, reached[0]),
                      follows(k.add(row, -1), row));
                  return {arith::SelectOp::create(k.b, k.loc, isNext,
                                                  k.add(row, 1), reached[0])};
                })[0];
}
