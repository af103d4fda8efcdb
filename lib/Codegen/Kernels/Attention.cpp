//===- Attention.cpp - attention over the paged cache ---------------------===//
//
// Scores of a page stand across lanes (keys are stored transposed inside a
// page), outputs across lanes too, so neither product needs a horizontal sum. A
// fixed partition of 256 positions keeps its own softmax state; partitions
// merge in ascending order. Neither depends on how many rows the step has.
//
//===----------------------------------------------------------------------===//
#include "isthmus/Codegen/Kernels.h"
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace isthmus;

static constexpr int64_t kPage = rt::kPagePositions;
static constexpr int64_t kPartition = fm::kAttentionPartition;
/// Stands for minus infinity without its NaNs.
static constexpr double kMasked = -1e30;

int64_t AttentionSpec::headBytes() const { return 2 * headDim * kPage * 4; }

int64_t AttentionSpec::scratchBytes() const {
  int64_t group = heads / kvHeads;
  // Scores, running outputs, running maximum and sum for each query head.
  return group * (kPartition + headDim + 2 * kLanes) * 4;
}

namespace {
class AttentionEmitter {
public:
  AttentionEmitter(KernelBuilder &k, const AttentionSpec &spec)
      : k(k), spec(spec), group(spec.heads / spec.kvHeads),
        lanes(k.vec(kLanes, k.f32())) {
    q = k.operand(0);
    state = k.operand(1);
    y = k.operand(2);
    positions = k.stepField(rt::kStepPositions, true);
    sequence = k.stepField(rt::kStepSequence, true);
    pageTables = k.stepField(rt::kStepPageTables, true);
    pageStride = k.stepField(rt::kStepPageStride, false);
    running = k.ptr(k.scratch, group * kPartition * 4);
    maxima = k.ptr(running, group * spec.headDim * 4);
    sums = k.ptr(maxima, group * kLanes * 4);
  }

  void emit() {
    k.loop(k.begin, k.end, 1, [&](Value tile) { emitTile(tile); });
  }

private:
  KernelBuilder &k;
  const AttentionSpec &spec;
  int64_t group; ///< query heads that share a key/value head
  VectorType lanes;
  Value q, state, y, positions, sequence, pageTables, pageStride;
  Value running, maxima, sums; ///< per query head, in scratch
  Value position, pages, queries, kvOffset;

  void emitTile(Value tile) {
    Value row = k.div(tile, spec.kvHeads), head = k.rem(tile, spec.kvHeads);
    Value rowOffset =
        k.add(k.mul(row, floatRowBytes(spec.heads * spec.headDim)),
              k.mul(head, group * spec.headDim * 4));
    position = k.toI64(k.load(k.i32(), k.ptr(positions, k.mul(row, 4))));
    Value table = k.toI64(k.load(k.i32(), k.ptr(sequence, k.mul(row, 4))));
    pages = k.ptr(pageTables, k.mul(k.mul(table, pageStride), 4));
    queries = k.ptr(q, rowOffset);
    kvOffset = k.mul(head, spec.headBytes());

    for (int64_t g = 0; g < group; ++g) {
      k.store(k.fcst(lanes, kMasked), maxima, g * kLanes * 4);
      k.store(k.zeros(kLanes), sums, g * kLanes * 4);
    }
    k.loop(k.cst(0), k.cst(group * spec.headDim * 4), kLanes * 4,
           [&](Value o) { k.store(k.zeros(kLanes), k.ptr(running, o)); });

    Value count = k.add(position, 1);
    k.loop(k.cst(0), count, kPartition, [&](Value first) {
      Value inside = k.min(k.sub(count, first), k.cst(kPartition));
      if (!spec.window) {
        emitPartition(first, inside);
        return;
      }
      // Nothing to do where neither a sink nor the window reaches.
      Value windowStart = k.add(position, 1 - *spec.window);
      Value beforeWindow =
          k.lessThan(k.add(first, inside), k.add(windowStart, 1));
      Value afterSinks = k.lessThan(k.cst(*spec.sinks - 1), first);
      Value skip = arith::AndIOp::create(k.b, k.loc, beforeWindow, afterSinks);
      k.ifElse(skip, [] {}, [&] { emitPartition(first, inside); });
    });

    for (int64_t g = 0; g < group; ++g) {
      Value sum = k.load(lanes, sums, g * kLanes * 4);
      for (int64_t d = 0; d < spec.headDim; d += kLanes) {
        int64_t offset = (g * spec.headDim + d) * 4;
        k.store(k.fdiv(k.load(lanes, running, offset), sum),
                k.ptr(y, rowOffset), offset);
      }
    }
  }

  Value pagePtr(Value index) {
    Value page = k.toI64(k.load(k.i32(), k.ptr(pages, k.mul(index, 4))));
    return k.ptr(k.ptr(state, k.mul(page, spec.pageBytes())), kvOffset);
  }

  /// `inside` positions from `first` on, 1..256 of them.
  void emitPartition(Value first, Value inside) {
    Value firstPage = k.div(first, kPage);
    Value pageCount = k.div(k.add(inside, kPage - 1), kPage);
    k.loop(k.cst(0), pageCount, 1, [&](Value p) {
      Value keys = pagePtr(k.add(firstPage, p));
      for (int64_t g = 0; g < group; g += 3)
        emitScores(keys, k.mul(p, kPage * 4), g,
                   std::min<int64_t>(3, group - g));
    });
    for (int64_t g = 0; g < group; ++g)
      emitSoftmax(g, first, inside, k.mul(pageCount, kPage * 4));
    for (int64_t g = 0; g < group; g += 3)
      emitOutputs(g, std::min<int64_t>(3, group - g), firstPage, inside,
                  pageCount);
  }

  /// scores[g][page positions] = scale * q . k, the head's features ascending.
  void emitScores(Value keys, Value offset, int64_t firstHead, int64_t heads) {
    auto acc = k.loop(k.cst(0), k.cst(spec.headDim), 1,
                      KernelBuilder::Values(heads * 2, k.zeros(kLanes)),
                      [&](Value d, ValueRange in) {
                        KernelBuilder::Values out(in);
                        Value column = k.ptr(keys, k.mul(d, kPage * 4));
                        Value low = k.load(lanes, column);
                        Value high = k.load(lanes, column, kLanes * 4);
                        for (int64_t h = 0; h < heads; ++h) {
                          Value query = k.splat(
                              k.load(k.f32(), k.ptr(queries, k.mul(d, 4)),
                                     (firstHead + h) * spec.headDim * 4),
                              kLanes);
                          out[2 * h] = k.fma(query, low, out[2 * h]);
                          out[2 * h + 1] = k.fma(query, high, out[2 * h + 1]);
                        }
                        return out;
                      });
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < 2; ++i)
        k.store(k.fmul(acc[2 * h + i], k.fcst(lanes, spec.scale)),
                k.ptr(k.scratch, offset),
                (firstHead + h) * kPartition * 4 + i * kLanes * 4);
  }

  /// True in the lanes that the row may see; `offset` is in bytes of scores.
  Value visible(Value offset, Value first, Value inside) {
    VectorType ints = k.vec(kLanes, k.i32());
    SmallVector<int32_t> iota;
    for (int32_t i = 0; i < kLanes; ++i)
      iota.push_back(i);
    Value lane = arith::ConstantOp::create(
        k.b, k.loc, DenseElementsAttr::get(ints, ArrayRef<int32_t>(iota)));
    auto splat32 = [&](Value v) {
      return k.splat(arith::TruncIOp::create(k.b, k.loc, k.i32(), v), kLanes);
    };
    auto less = [&](Value a, Value b) -> Value {
      return arith::CmpIOp::create(k.b, k.loc, arith::CmpIPredicate::slt, a, b);
    };
    Value index = k.add(lane, splat32(k.div(offset, 4)));
    Value result = less(index, splat32(inside));
    if (spec.window) {
      Value absolute = k.add(index, splat32(first));
      Value isSink = less(absolute, k.cst(ints, *spec.sinks));
      Value inWindow = less(splat32(k.add(position, -*spec.window)), absolute);
      Value either = arith::OrIOp::create(k.b, k.loc, isSink, inWindow);
      result = arith::AndIOp::create(k.b, k.loc, result, either);
    }
    return result;
  }

  /// Turns scores into exp(score - maximum), and folds the partition's maximum
  /// and sum into the running ones; rescales the running output.
  void emitSoftmax(int64_t g, Value first, Value inside, Value bytes) {
    Value scores = k.ptr(k.scratch, g * kPartition * 4);
    auto select = [&](Value mask, Value yes, Value no) -> Value {
      return arith::SelectOp::create(k.b, k.loc, mask, yes, no);
    };
    Value largest =
        k.loop(k.cst(0), bytes, kLanes * 4, {k.fcst(lanes, kMasked)},
               [&](Value offset, ValueRange in) -> KernelBuilder::Values {
                 Value s = select(visible(offset, first, inside),
                                  k.load(lanes, k.ptr(scores, offset)),
                                  k.fcst(lanes, kMasked));
                 return {k.fmax(in[0], s)};
               })[0];
    Value maximum = k.splat(k.reduceMax(largest), kLanes);
    Value total =
        k.loop(k.cst(0), bytes, kLanes * 4, {k.zeros(kLanes)},
               [&](Value offset, ValueRange in) -> KernelBuilder::Values {
                 Value at = k.ptr(scores, offset);
                 Value e = k.exp(k.fsub(k.load(lanes, at), maximum));
                 e = select(visible(offset, first, inside), e, k.zeros(kLanes));
                 k.store(e, at);
                 return {k.fadd(in[0], e)};
               })[0];
    Value sum = k.splat(k.reduceAdd(total), kLanes);

    Value oldMaximum = k.load(lanes, maxima, g * kLanes * 4);
    Value newMaximum = k.fmax(oldMaximum, maximum);
    Value oldFactor = k.exp(k.fsub(oldMaximum, newMaximum));
    Value newFactor = k.exp(k.fsub(maximum, newMaximum));
    Value oldSum = k.load(lanes, sums, g * kLanes * 4);
    k.store(newMaximum, maxima, g * kLanes * 4);
    k.store(k.fma(sum, newFactor, k.fmul(oldSum, oldFactor)), sums,
            g * kLanes * 4);
    // Scaling the probabilities here saves keeping the factor for later.
    k.loop(k.cst(0), bytes, kLanes * 4, [&](Value offset) {
      Value at = k.ptr(scores, offset);
      k.store(k.fmul(k.load(lanes, at), newFactor), at);
    });
    Value out = k.ptr(running, g * spec.headDim * 4);
    for (int64_t d = 0; d < spec.headDim; d += kLanes)
      k.store(k.fmul(k.load(lanes, out, d * 4), oldFactor), out, d * 4);
  }

  /// running[g] += probabilities * values, positions ascending.
  void emitOutputs(int64_t firstHead, int64_t heads, Value firstPage,
                   Value inside, Value pageCount) {
    int64_t width = spec.headDim % 32 == 0 ? 2 : 1; // vectors at once
    for (int64_t d = 0; d < spec.headDim; d += width * kLanes) {
      auto at = [&](int64_t h, int64_t i) {
        return ((firstHead + h) * spec.headDim + d + i * kLanes) * 4;
      };
      KernelBuilder::Values inits;
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < width; ++i)
          inits.push_back(k.load(lanes, running, at(h, i)));
      auto acc =
          k.loop(k.cst(0), pageCount, 1, inits, [&](Value p, ValueRange outer) {
            Value values = k.ptr(pagePtr(k.add(firstPage, p)),
                                 spec.headDim * kPage * 4 + d * 4);
            Value firstInPage = k.mul(p, kPage);
            Value limit = k.min(k.sub(inside, firstInPage), k.cst(kPage));
            return k.loop(
                k.cst(0), limit, 1, KernelBuilder::Values(outer),
                [&](Value j, ValueRange in) {
                  KernelBuilder::Values out(in);
                  Value line = k.ptr(values, k.mul(j, spec.headDim * 4));
                  Value probability =
                      k.ptr(k.scratch, k.mul(k.add(firstInPage, j), 4));
                  KernelBuilder::Values v;
                  for (int64_t i = 0; i < width; ++i)
                    v.push_back(k.load(lanes, line, i * kLanes * 4));
                  for (int64_t h = 0; h < heads; ++h) {
                    Value weight =
                        k.splat(k.load(k.f32(), probability,
                                       (firstHead + h) * kPartition * 4),
                                kLanes);
                    for (int64_t i = 0; i < width; ++i)
                      out[h * width + i] =
                          k.fma(weight, v[i], out[h * width + i]);
                  }
                  return out;
                });
          });
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < width; ++i)
          k.store(acc[h * width + i], running, at(h, i));
    }
  }
};
} // namespace

void isthmus::emitAttention(KernelBuilder &k, const AttentionSpec &spec) {
  AttentionEmitter(k, spec).emit();
}

void isthmus::emitAppendKV(KernelBuilder &k, const AttentionSpec &spec) {
  Value keys = k.operand(0), values = k.operand(1), state = k.operand(2);
  Value positions = k.stepField(rt::kStepPositions, true);
  Value sequence = k.stepField(rt::kStepSequence, true);
  Value pageTables = k.stepField(rt::kStepPageTables, true);
  Value pageStride = k.stepField(rt::kStepPageStride, false);
  int64_t features = spec.kvHeads * spec.headDim;
  k.loop(k.begin, k.end, 1, [&](Value row) {
    Value position = k.toI64(k.load(k.i32(), k.ptr(positions, k.mul(row, 4))));
    Value table = k.toI64(k.load(k.i32(), k.ptr(sequence, k.mul(row, 4))));
    Value entry = k.add(k.mul(table, pageStride), k.div(position, kPage));
    Value page = k.toI64(k.load(k.i32(), k.ptr(pageTables, k.mul(entry, 4))));
    Value slot = k.rem(position, kPage);
    Value base = k.ptr(state, k.mul(page, spec.pageBytes()));
    Value in = k.mul(row, floatRowBytes(features));
    k.loop(k.cst(0), k.cst(spec.kvHeads), 1, [&](Value head) {
      Value out = k.ptr(base, k.mul(head, spec.headBytes()));
      Value from = k.add(in, k.mul(head, spec.headDim * 4));
      Value key = k.ptr(keys, from), value = k.ptr(values, from);
      Value keyOut = k.ptr(out, k.mul(slot, 4));
      k.loop(k.cst(0), k.cst(spec.headDim), 1, [&](Value d) {
        k.store(k.load(k.f32(), k.ptr(key, k.mul(d, 4))),
                k.ptr(keyOut, k.mul(d, kPage * 4)));
      });
      Value valueOut = k.ptr(k.ptr(out, spec.headDim * kPage * 4),
                             k.mul(slot, spec.headDim * 4));
      for (int64_t d = 0; d < spec.headDim; d += kLanes)
        k.store(k.load(k.vec(kLanes, k.f32()), value, d * 4), valueOut, d * 4);
    });
  });
}
