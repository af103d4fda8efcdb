//===- AppendKV.cpp - new keys and values enter the paged cache -----------===//
#include "CacheRows.h"
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
        cacheRows(k) {}

  void emit() {
    k.loop(k.begin, k.end, 1, [&](Value tile) {
      Value row = k.div(tile, spec.kvHeads), head = k.rem(tile, spec.kvHeads);
      if (spec.valuesAtOnce() == 2)
        appendPairs(row, head);
      else
        appendInBlocks(row, head);
    });
  }

private:
  KernelBuilder &k;
  const AttentionSpec &spec;
  const int64_t bytes, rowBytes;
  Value keys, values, state;
  CacheRows cacheRows;

  /// Where a row's key and value of a head come from and go to.
  struct Place {
    Value key, value; ///< f32
    Value out;        ///< the head in its page
    Value slot;       ///< the position in the page
  };

  Place placeOf(Value row, Value head) {
    Value position = cacheRows.position(row);
    Value page = cacheRows.pageOffset(spec, cacheRows.pages(row),
                                      k.div(position, kPage));
    Value from = k.add(k.mul(row, rowBytes), k.mul(head, spec.headDim * 4));
    return {k.ptr(keys, from), k.ptr(values, from),
            k.ptr(k.ptr(state, page), k.mul(head, spec.headStride())),
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
    auto shape = dyn_cast<VectorType>(value.getType());
    Type type = shape ? Type(k.vec(shape.getNumElements(), k.f16())) : k.f16();
    return arith::TruncFOp::create(k.b, k.loc, type, value);
  }

  /// Positions of which keys are turned in registers: a key stands across its
  /// page, a value a line.
  static constexpr int64_t kBlock = 8;
  static_assert(kPage % kBlock == 0 && kLanes % kBlock == 0);

  /// Where this step has all positions of a block, the first one's tile stores
  /// them.
  void appendInBlocks(Value row, Value head) {
    Value inBlock = k.rem(cacheRows.position(row), kBlock);
    Value first = k.sub(row, inBlock), end = k.add(first, kBlock);
    Value isInStep = both(k.lessThan(k.cst(-1), first),
                          k.lessThan(k.add(end, -1), k.rowCount()));
    // (From the step's first row on where a block begins before it.)
    Value from = arith::SelectOp::create(k.b, k.loc, isInStep, first, k.cst(0));
    Value to = arith::SelectOp::create(k.b, k.loc, isInStep, end, k.cst(0));
    Value fits = both(isInStep, k.equal(cacheRows.runEnd(from, to), end));
    k.ifElse(
        fits,
        [&] {
          k.ifElse(k.equal(inBlock, k.cst(0)), [&] {
            Place place = placeOf(row, head);
            appendKeys(place);
            for (int64_t i = 0; i < kBlock; ++i)
              appendValue(place, i);
          });
        },
        [&] {
          Place place = placeOf(row, head);
          Value out = k.ptr(place.out, k.mul(place.slot, bytes));
          k.loop(k.cst(0), k.cst(spec.headDim), 1, [&](Value d) {
            k.store(stored(k.load(k.f32(), k.ptr(place.key, k.mul(d, 4)))),
                    k.ptr(out, k.mul(d, kPage * bytes)));
          });
          appendValue(place, 0);
        });
  }

  /// The keys of a block.
  void appendKeys(const Place &first) {
    Value out = k.ptr(first.out, k.mul(first.slot, bytes));
    k.loop(k.cst(0), k.cst(spec.headDim), kBlock, [&](Value d) {
      Value from = k.ptr(first.key, k.mul(d, 4));
      Value to = k.ptr(out, k.mul(d, kPage * bytes));
      Values rows;
      for (int64_t i = 0; i < kBlock; ++i)
        rows.push_back(k.load(k.vec(kBlock, k.f32()), from, i * rowBytes));
      for (auto [i, column] : llvm::enumerate(transposed(rows)))
        k.store(stored(column), to, int64_t(i) * kPage * bytes);
    });
  }

  /// Columns of 8 x 8 values: exchanges single lanes of neighbours, then pairs,
  /// then halves, each within what machines shuffle at once.
  Values transposed(Values rows) {
    for (int64_t apart = 1; apart < kBlock; apart *= 2) {
      SmallVector<int64_t> low, high;
      for (int64_t i = 0; i < kBlock; ++i) {
        const bool second = i & apart;
        low.push_back(second ? kBlock + i - apart : i);
        high.push_back(second ? kBlock + i : i + apart);
      }
      for (int64_t i = 0; i < kBlock; ++i) {
        if (i & apart)
          continue;
        Value a = rows[size_t(i)], b = rows[size_t(i + apart)];
        rows[size_t(i)] = vector::ShuffleOp::create(k.b, k.loc, a, b, low);
        rows[size_t(i + apart)] =
            vector::ShuffleOp::create(k.b, k.loc, a, b, high);
      }
    }
    return rows;
  }

  /// The value of the row `next` rows, and positions, after that of `place`.
  void appendValue(const Place &place, int64_t next) {
    Value out = k.ptr(k.ptr(place.out, spec.valuesOffset()),
                      k.mul(place.slot, spec.headDim * bytes));
    for (int64_t d = 0; d < spec.headDim; d += kLanes)
      k.store(stored(k.load(k.vec(kLanes, k.f32()), place.value,
                            next * rowBytes + d * 4)),
              out, (next * spec.headDim + d) * bytes);
  }

  Value both(Value a, Value b) {
    return arith::AndIOp::create(k.b, k.loc, a, b);
  }

  /// Values of two positions stand side by side. If both come in this step, the
  /// first one's tile stores them, whole registers at once.
  void appendPairs(Value row, Value head) {
    Value isSecond = k.equal(k.rem(cacheRows.position(row), 2), k.cst(1));
    Value before = k.max(k.add(row, -1), k.cst(0));
    Value next = k.min(k.add(row, 1), k.add(k.rowCount(), -1));
    k.ifElse(
        both(isSecond, cacheRows.follows(before, row)), [] {},
        [&] {
          Place place = placeOf(row, head);
          k.ifElse(
              isSecond, [&] { appendAlone(place, /*second=*/true); },
              [&] {
                k.ifElse(
                    cacheRows.follows(row, next), [&] { appendBoth(place); },
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
