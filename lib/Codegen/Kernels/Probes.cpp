//===- Probes.cpp - kernels that measure the limits of a machine ----------===//
//
// A roofline is only as honest as its limits: these are measured on the machine
// at hand, with the instructions that the target's own kernels use.
//
//===----------------------------------------------------------------------===//
#include "DotProducts.h"
#include "isthmus/Codegen/Kernels.h"
#include "isthmus/runtime/KernelABI.h"

#include "isthmus/Weights/PackedLayout.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace isthmus;

namespace {
using Values = KernelBuilder::Values;

/// Adds up everything it reads; the sum is stored, so that nothing is dropped.
/// Fetches `ahead` bytes further on, unless 0: which is faster depends on what
/// the hardware fetches alone.
void emitProbeRead(KernelBuilder &k, int64_t ahead) {
  constexpr int64_t kVectors = 8;
  VectorType ints = k.vec(kLanes, k.i32());
  Value data = k.operand(0);
  k.loop(k.begin, k.end, 1, [&](Value tile) {
    Value from = k.ptr(data, k.mul(tile, rt::kProbeReadBytes));
    Values sums = k.loop(
        k.cst(0), k.cst(rt::kProbeReadBytes), kVectors * 64,
        Values(kVectors, k.cst(ints, 0)), [&](Value offset, ValueRange in) {
          Values out(in);
          if (ahead)
            k.prefetch(k.ptr(k.ptr(from, offset), ahead), kVectors * 64);
          for (int64_t i = 0; i < kVectors; ++i)
            out[i] = k.add(out[i], k.load(ints, k.ptr(from, offset), i * 64));
          return out;
        });
    Value total = sums[0];
    for (int64_t i = 1; i < kVectors; ++i)
      total = k.add(total, sums[i]);
    k.store(total, k.scratch);
  });
}

/// Independent chains of multiply-adds, one for each accumulator that the
/// target's matrix products use. `step(sum)` makes `perLane` of them a lane.
void emitChains(KernelBuilder &k, int64_t chains, Value start, int64_t perLane,
                const std::function<Value(Value)> &step) {
  k.loop(k.begin, k.end, 1, [&](Value) {
    Values sums = k.loop(k.cst(0), k.cst(rt::kProbeMultiplyAdds),
                         chains * kLanes * perLane, Values(chains, start),
                         [&](Value, ValueRange in) {
                           Values out(in);
                           for (Value &sum : out)
                             sum = step(sum);
                           return out;
                         });
    Value total = sums[0];
    for (int64_t i = 1; i < chains; ++i)
      total = k.fadd(total, sums[i]);
    k.store(total, k.scratch, 128);
  });
}

void emitProbeF32(KernelBuilder &k) {
  VectorType floats = k.vec(kLanes, k.f32());
  Value factor = k.load(floats, k.scratch),
        addend = k.load(floats, k.scratch, 64);
  emitChains(k, k.target.schedule.floatRows, addend, 1,
             [&](Value sum) { return k.fma(sum, factor, addend); });
}

void emitProbeBF16(KernelBuilder &k) {
  // (The same in all lanes: halves of pairs take no registers from the sums.)
  Value x = k.splat(k.load(k.i32(), k.scratch), kLanes),
        y = k.splat(k.load(k.i32(), k.scratch, 64), kLanes);
  emitChains(k, k.target.schedule.pairRows, k.zeros(kLanes), 2,
             [&](Value sum) { return emitPairDot(k, x, y, sum); });
}

/// The group product of the many-token kernels over one block that stays in the
/// first cache, without scales.
void emitProbeGroups(KernelBuilder &k) {
  VectorType ints = k.vec(kLanes, k.i32());
  const int64_t rows = k.target.schedule.nibbleRows;
  const PackedLayout weight{PackedFormat::Int4, kLanes,
                            PackedLayout::kInt4Group};
  const int64_t perBlock = rows * kLanes * weight.group();
  Value block = k.ptr(k.scratch, 1024);
  k.loop(k.begin, k.end, 1, [&](Value) {
    Values sums = k.loop(
        k.cst(0), k.cst(rt::kProbeMultiplyAdds), perBlock,
        Values(rows, k.cst(ints, 0)), [&](Value i, ValueRange in) {
          // Other rows each time, so that no product is loop-invariant.
          Value shift = k.mul(k.rem(k.div(i, perBlock), 16), weight.group());
          Values xs, out(in);
          for (int64_t r = 0; r < rows; ++r)
            xs.push_back(k.ptr(k.ptr(k.scratch, shift), r * weight.group()));
          Values dots = emitGroupDot(k, weight, weight.group(), {block}, xs,
                                     Values(rows, k.cst(ints, 0)));
          for (int64_t r = 0; r < rows; ++r)
            out[r] = k.add(out[r], dots[r]);
          return out;
        });
    Value total = sums[0];
    for (int64_t r = 1; r < rows; ++r)
      total = k.add(total, sums[r]);
    k.store(total, k.scratch, 2048);
  });
}

/// What a matrix unit can do: registers alone.
void emitProbeTiles(KernelBuilder &k, int64_t parts) {
  Value some = k.load(k.vec(kLanes, k.i32()), k.scratch);
  Value data = k.stackBuffer(kRepeatedTilesBytes);
  k.loop(k.cst(0), k.cst(kRepeatedTilesBytes), 64,
         [&](Value at) { k.store(some, k.ptr(data, at)); });
  emitRepeatedTiles(
      k, parts, data,
      k.mul(k.sub(k.end, k.begin),
            rt::kProbeMultiplyAdds / repeatedTilesMultiplyAdds(parts)));
}

void emitProbeBF16x1(KernelBuilder &k) { emitProbeTiles(k, 1); }
void emitProbeBF16x6(KernelBuilder &k) { emitProbeTiles(k, kFloatParts); }

void emitProbeInt8(KernelBuilder &k) {
  if (usesTiles(k.target, PackedFormat::Int8, kTileRows))
    emitProbeTiles(k, /*parts=*/0);
  else
    emitProbeGroups(k);
}
} // namespace

void isthmus::emitProbes(ModuleOp kernels, const TargetDescription &target,
                         Location loc) {
  auto add = [&](const char *name, void (*emit)(KernelBuilder &)) {
    KernelBuilder k(kernels, name, target, loc);
    emit(k);
    k.finish();
  };
  add(rt::kProbeRead, [](KernelBuilder &k) { emitProbeRead(k, 0); });
  add(rt::kProbeReadAhead,
      [](KernelBuilder &k) { emitProbeRead(k, 16 << 10); });
  add(rt::kProbeF32, emitProbeF32);
  add(rt::kProbeBF16, emitProbeBF16);
  add(rt::kProbeInt8, emitProbeInt8);
  if (target.tileRegisters == 0)
    return;
  add(rt::kProbeBF16x1, emitProbeBF16x1);
  add(rt::kProbeBF16x6, emitProbeBF16x6);
}
