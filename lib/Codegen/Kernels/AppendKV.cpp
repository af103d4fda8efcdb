//===- AppendKV.cpp - new keys and values enter the paged cache -----------===//
#include "RowWise.h"
#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace isthmus;

namespace {
using Values = KernelBuilder::Values;
constexpr int64_t kPage = rt::kPagePositions;

class AppendEmitter {
public:
  AppendEmitter(KernelBuilder &k, const AttentionSpec &spec)
      : k(k), spec(spec), bytes(spec.valueBytes()),
        rowBytes(floatRowBytes(spec.kvHeads * spec.headDim)),
        keys(k.operand(0)), values(k.operand(1)), state(k.operand(2)),
        positions(k.stepField(rt::kStepPositions, true)),
        sequence(k.stepField(rt::kStepSequence, true)),
        pageTables(k.stepField(rt::kStepPageTables, true)),
        pageStride(k.stepField(rt::kStepPageStride, false)) {}

  void emit() {
    k.loop(k.begin, k.end, 1, [&](Value tile) {
      Value row = k.div(tile, spec.kvHeads), head = k.rem(tile, spec.kvHeads);
      if (spec.valuesAtOnce() == 2)
        appendPairs(row, head);
      else
        appendPlain(placeOf(row, head));
    });
  }

private:
  KernelBuilder &k;
  const AttentionSpec &spec;
  const int64_t bytes, rowBytes;
  Value keys, values, state, positions, sequence, pageTables, pageStride;

  /// Where a row's key and value of a head come from and go to.
  struct Place {
    Value key, value; ///< f32
    Value out;        ///< the head in its page
    Value slot;       ///< the position in the page
  };

  Value stepEntry(Value array, Value row) {
    return k.toI64(k.load(k.i32(), k.ptr(array, k.mul(row, 4))));
  }

  Place placeOf(Value row, Value head) {
    Value position = stepEntry(positions, row);
    Value entry = k.add(k.mul(stepEntry(sequence, row), pageStride),
                        k.div(position, kPage));
    Value page = k.toI64(k.load(k.i32(), k.ptr(pageTables, k.mul(entry, 4))));
    Value from = k.add(k.mul(row, rowBytes), k.mul(head, spec.headDim * 4));
    return {k.ptr(keys, from), k.ptr(values, from),
            k.ptr(k.ptr(state, k.mul(page, spec.pageBytes())),
                  k.mul(head, spec.headBytes())),
            k.rem(position, kPage)};
  }

  /// Stores each lane of `v`, `stride` bytes apart.
  void scatter(Value v, Value to, int64_t stride) {
    for (int64_t i = 0; i < cast<VectorType>(v.getType()).getNumElements(); ++i)
      k.store(k.extract(v, i), to, i * stride);
  }

  Value stored(Value value) {
    if (spec.format == PackedFormat::F32)
      return value;
    Type type = isa<VectorType>(value.getType()) ? Type(k.vec(kLanes, k.f16()))
                                                 : k.f16();
    return arith::TruncFOp::create(k.b, k.loc, type, value);
  }

  /// A key goes across the page, a line a value.
  void appendPlain(const Place &place) {
    Value keyOut = k.ptr(place.out, k.mul(place.slot, bytes));
    Value valueOut = k.ptr(k.ptr(place.out, spec.valuesOffset()),
                           k.mul(place.slot, spec.headDim * bytes));
    k.loop(k.cst(0), k.cst(spec.headDim), 1, [&](Value d) {
      k.store(stored(k.load(k.f32(), k.ptr(place.key, k.mul(d, 4)))),
              k.ptr(keyOut, k.mul(d, kPage * bytes)));
    });
    for (int64_t d = 0; d < spec.headDim; d += kLanes)
      k.store(stored(k.load(k.vec(kLanes, k.f32()), place.value, d * 4)),
              valueOut, d * bytes);
  }

  /// Whether row `second` of the step follows `first`, its sequence's position
  /// before.
  Value follows(Value first, Value second) {
    return both(
        k.equal(stepEntry(sequence, first), stepEntry(sequence, second)),
        k.equal(k.add(stepEntry(positions, first), 1),
                stepEntry(positions, second)));
  }
  Value both(Value a, Value b) {
    return arith::AndIOp::create(k.b, k.loc, a, b);
  }

  /// Values of two positions stand side by side. If both come in this step, the
  /// first one's tile stores them, whole registers at once.
  void appendPairs(Value row, Value head) {
    Value isSecond = k.equal(k.rem(stepEntry(positions, row), 2), k.cst(1));
    Value before = k.max(k.add(row, -1), k.cst(0));
    Value next = k.min(k.add(row, 1), k.add(k.rowCount(), -1));
    k.ifElse(
        both(isSecond, follows(before, row)), [] {},
        [&] {
          Place place = placeOf(row, head);
          k.ifElse(
              isSecond, [&] { appendAlone(place, /*second=*/true); },
              [&] {
                k.ifElse(
                    follows(row, next), [&] { appendBoth(place); },
                    [&] { appendAlone(place, /*second=*/false); });
              });
        });
  }

  /// 16 features a vector, as they are stored; of int8 the scale is too.
  Values rounded(Value from, Value out, Value slot, int64_t scales) {
    Values floats, out16;
    for (int64_t d = 0; d < spec.headDim; d += kLanes)
      floats.push_back(k.load(k.vec(kLanes, k.f32()), from, d * 4));
    Type lanes = k.vec(kLanes, bytes == 1 ? k.i8() : k.i16());
    auto truncated = [&](Value bits) {
      out16.push_back(arith::TruncIOp::create(k.b, k.loc, lanes, bits));
    };
    if (spec.format == PackedFormat::BF16) {
      for (Value v : floats)
        truncated(k.toBF16(v));
      return out16;
    }
    auto [scale, factor] = scalingFor(k, largestMagnitude(k, floats), 127.0);
    k.store(scale, k.ptr(out, k.mul(slot, 4)), scales);
    for (Value v : floats)
      truncated(k.roundedBits(k.fmul(v, k.splat(factor, kLanes))));
    return out16;
  }
  Values roundedKey(const Place &place) {
    return rounded(place.key, place.out, place.slot,
                   spec.hasScales() ? spec.keyScalesOffset() : 0);
  }
  Values roundedValue(const Place &place) {
    return rounded(place.value, place.out, place.slot,
                   spec.hasScales() ? spec.valueScalesOffset() : 0);
  }

  /// Pairs of features of a key, one a lane.
  Value featurePairs(Value v) {
    return k.bitcast(k.vec(kLanes / 2, bytes == 1 ? k.i16() : k.i32()), v);
  }
  Value keyOut(const Place &place, size_t vector) {
    return k.ptr(k.ptr(place.out, k.mul(place.slot, 2 * bytes)),
                 int64_t(vector) * kLanes * kPage * bytes);
  }
  Value valueOut(const Place &place, size_t vector) {
    return k.ptr(
        k.ptr(place.out, k.mul(k.div(place.slot, 2), spec.headDim * 2 * bytes)),
        spec.valuesOffset() + int64_t(vector) * kLanes * 2 * bytes);
  }
  static constexpr int64_t kPairsApart = 2 * kPage; ///< values

  void appendAlone(const Place &place, bool second) {
    for (auto [i, v] : llvm::enumerate(roundedKey(place)))
      scatter(featurePairs(v), keyOut(place, i), kPairsApart * bytes);
    for (auto [i, v] : llvm::enumerate(roundedValue(place))) {
      Value to = k.ptr(valueOut(place, i), second ? bytes : 0);
      // Whoever multiplies the pair must not find what an earlier owner of the
      // page left for the second: no number perhaps. (Not of int8, where a zero
      // probability hides whatever stands there.)
      if (!second && spec.format == PackedFormat::BF16)
        k.store(arith::ExtUIOp::create(k.b, k.loc, k.vec(kLanes, k.i32()), v),
                to);
      else
        scatter(v, to, 2 * bytes);
    }
  }

  void appendBoth(const Place &first) {
    Place second{k.ptr(first.key, rowBytes), k.ptr(first.value, rowBytes),
                 first.out, k.add(first.slot, 1)};
    Values a = roundedKey(first), b = roundedKey(second);
    Type wide = k.vec(kLanes / 2, bytes == 1 ? k.i32() : k.i64());
    for (size_t i = 0; i < a.size(); ++i)
      scatter(k.bitcast(wide, zip(featurePairs(a[i]), featurePairs(b[i]))),
              keyOut(first, i), kPairsApart * bytes);
    a = roundedValue(first), b = roundedValue(second);
    for (size_t i = 0; i < a.size(); ++i)
      k.store(zip(a[i], b[i]), valueOut(first, i));
  }

  /// Lanes of both in turn.
  Value zip(Value a, Value b) {
    const int64_t lanes = cast<VectorType>(a.getType()).getNumElements();
    SmallVector<int64_t> order;
    for (int64_t i = 0; i < lanes; ++i)
      order.append({i, lanes + i});
    return vector::ShuffleOp::create(k.b, k.loc, a, b, order);
  }
};
} // namespace

void isthmus::emitAppendKV(KernelBuilder &k, const AttentionSpec &spec) {
  AppendEmitter(k, spec).emit();
}
