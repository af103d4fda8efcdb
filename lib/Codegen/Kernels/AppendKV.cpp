//===- AppendKV.cpp - new keys and values enter the paged cache -----------===//
#include "RowWise.h"
#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace isthmus;

using Values = KernelBuilder::Values;
static constexpr int64_t kPage = rt::kPagePositions;

void isthmus::emitAppendKV(KernelBuilder &k, const AttentionSpec &spec) {
  Value keys = k.operand(0), values = k.operand(1), state = k.operand(2);
  Value positions = k.stepField(rt::kStepPositions, true);
  Value sequence = k.stepField(rt::kStepSequence, true);
  Value pageTables = k.stepField(rt::kStepPageTables, true);
  Value pageStride = k.stepField(rt::kStepPageStride, false);
  const int64_t features = spec.kvHeads * spec.headDim;
  const int64_t bytes = spec.valueBytes(), step = spec.valuesAtOnce();
  auto stored = [&](Value value) -> Value {
    if (spec.format == PackedFormat::F32)
      return value;
    Type type = isa<VectorType>(value.getType()) ? Type(k.vec(kLanes, k.f16()))
                                                 : k.f16();
    return arith::TruncFOp::create(k.b, k.loc, type, value);
  };
  /// Stores each lane of `v`, `stride` bytes apart.
  auto scatter = [&](Value v, Value to, int64_t stride) {
    for (int64_t i = 0; i < cast<VectorType>(v.getType()).getNumElements(); ++i)
      k.store(k.extract(v, i), to, i * stride);
  };
  k.loop(k.begin, k.end, 1, [&](Value tile) {
    Value row = k.div(tile, spec.kvHeads), head = k.rem(tile, spec.kvHeads);
    Value position = k.toI64(k.load(k.i32(), k.ptr(positions, k.mul(row, 4))));
    Value table = k.toI64(k.load(k.i32(), k.ptr(sequence, k.mul(row, 4))));
    Value entry = k.add(k.mul(table, pageStride), k.div(position, kPage));
    Value page = k.toI64(k.load(k.i32(), k.ptr(pageTables, k.mul(entry, 4))));
    Value slot = k.rem(position, kPage);
    Value out = k.ptr(k.ptr(state, k.mul(page, spec.pageBytes())),
                      k.mul(head, spec.headBytes()));
    Value from = k.add(k.mul(row, floatRowBytes(features)),
                       k.mul(head, spec.headDim * 4));
    Value key = k.ptr(keys, from), value = k.ptr(values, from);
    Value keyOut = k.ptr(out, k.mul(slot, bytes * step));
    Value valueOut =
        k.ptr(k.ptr(out, spec.valuesOffset()),
              k.add(k.mul(k.div(slot, step), spec.headDim * bytes * step),
                    k.mul(k.rem(slot, step), bytes)));
    if (spec.format == PackedFormat::BF16) {
      // Pairs of features of the key. The two values of a pair of positions may
      // come from two threads, so that neither stores both; unless the second
      // is still to come, when the first makes it zero: whoever multiplies the
      // pair must not find what an earlier owner of the page left there.
      Value next = k.min(k.add(row, 1), k.add(k.rowCount(), -1));
      auto entry = [&](Value array) {
        return k.toI64(k.load(k.i32(), k.ptr(array, k.mul(next, 4))));
      };
      Value followed =
          arith::AndIOp::create(k.b, k.loc, k.equal(entry(sequence), table),
                                k.equal(entry(positions), k.add(position, 1)));
      Value half = arith::OrIOp::create(k.b, k.loc, followed,
                                        k.equal(k.rem(slot, 2), k.cst(1)));
      VectorType words = k.vec(kLanes, k.i16());
      k.loop(k.cst(0), k.cst(spec.headDim), kLanes, [&](Value d) {
        Value at = k.mul(d, 4);
        auto rounded = [&](Value from) {
          return k.toBF16(k.load(k.vec(kLanes, k.f32()), k.ptr(from, at)));
        };
        Value pairs = arith::TruncIOp::create(k.b, k.loc, words, rounded(key));
        scatter(k.bitcast(k.vec(kLanes / 2, k.i32()), pairs),
                k.ptr(keyOut, k.mul(d, kPage * bytes)), kPage * bytes * step);
        Value v = rounded(value), to = k.ptr(valueOut, at);
        k.ifElse(
            half,
            [&] {
              scatter(arith::TruncIOp::create(k.b, k.loc, words, v), to,
                      bytes * step);
            },
            [&] { k.store(v, to); });
      });
      return;
    }
    if (spec.format == PackedFormat::Int8) {
      // A scale for the key and one for the value of the position; pairs as
      // with bf16, but a zero probability hides whatever stands in the other
      // half.
      auto quantized = [&](Value from, int64_t scales) {
        Values floats, q;
        for (int64_t d = 0; d < spec.headDim; d += kLanes)
          floats.push_back(k.load(k.vec(kLanes, k.f32()), from, d * 4));
        auto [scale, factor] =
            scalingFor(k, largestMagnitude(k, floats), 127.0);
        k.store(scale, k.ptr(out, k.mul(slot, 4)), scales);
        for (Value v : floats)
          q.push_back(arith::TruncIOp::create(
              k.b, k.loc, k.vec(kLanes, k.i8()),
              k.roundedBits(k.fmul(v, k.splat(factor, kLanes)))));
        return q;
      };
      Values keys = quantized(key, spec.keyScalesOffset());
      Values values = quantized(value, spec.valueScalesOffset());
      for (size_t i = 0; i < keys.size(); ++i) {
        const int64_t d = int64_t(i) * kLanes;
        scatter(k.bitcast(k.vec(kLanes / 2, k.i16()), keys[i]),
                k.ptr(keyOut, d * kPage), kPage * step);
        scatter(values[i], k.ptr(valueOut, d * step), step);
      }
      return;
    }
    // A key goes across the page, a line a value.
    k.loop(k.cst(0), k.cst(spec.headDim), 1, [&](Value d) {
      k.store(stored(k.load(k.f32(), k.ptr(key, k.mul(d, 4)))),
              k.ptr(keyOut, k.mul(d, kPage * bytes)));
    });
    for (int64_t d = 0; d < spec.headDim; d += kLanes)
      k.store(stored(k.load(k.vec(kLanes, k.f32()), value, d * 4)), valueOut,
              d * bytes);
  });
}
