//===- Partitions.cpp - results of attention's partitions -----------------===//
#include "Partitions.h"

#include "isthmus/runtime/KernelABI.h"

using namespace mlir;
using namespace isthmus;
using Values = KernelBuilder::Values;

int64_t AttentionSpec::partialBytes() const {
  return group() * (headDim + 2 * kLanes) * 4;
}

int64_t AttentionSpec::partialRowBytes() const {
  return kvHeads * partitions * partialBytes();
}

MergeFactors isthmus::mergePartition(KernelBuilder &k,
                                     const AttentionSpec &spec,
                                     RunningSoftmax &running, Value maximum,
                                     Value sum) {
  Value largest = k.fmax(running.maximum, maximum);
  auto weight = [&](Value score) {
    Value difference = k.fsub(score, largest);
    if (double unit = scoreUnit(spec); unit != 1.0)
      difference = k.fmul(difference, k.fcst(difference.getType(), 1.0 / unit));
    return k.exp(difference);
  };
  MergeFactors factors{weight(running.maximum), weight(maximum)};
  running.sum = k.fma(sum, factors.added, k.fmul(running.sum, factors.old));
  running.maximum = largest;
  return factors;
}

void isthmus::emitAttentionMerge(KernelBuilder &k, const AttentionSpec &spec) {
  Value partials = k.operand(0), y = k.operand(1);
  // The last position that each row sees.
  Value array = k.stepField(
      spec.bidirectional ? rt::kStepSequence : rt::kStepPositions, true);
  Value lengths;
  if (spec.bidirectional)
    lengths = k.stepField(rt::kStepLengths, true);
  auto entry = [&](Value array, Value index) {
    return k.toI64(k.load(k.i32(), k.ptr(array, k.mul(index, 4))));
  };
  VectorType lanes = k.vec(kLanes, k.f32());
  const int64_t vectors = spec.headDim / kLanes;
  const int64_t headBytes = (spec.headDim + 2 * kLanes) * 4;
  k.loop(k.begin, k.end, 1, [&](Value row) {
    Value last = entry(array, row);
    if (lengths)
      last = k.add(entry(lengths, last), -1);
    Value count = k.add(k.div(last, rt::kPartitionPositions), 1);
    Value from = k.ptr(partials, k.mul(row, spec.partialRowBytes()));
    Value out = k.ptr(y, k.mul(row, floatRowBytes(spec.heads * spec.headDim)));
    k.loop(k.cst(0), k.cst(spec.heads), 1, [&](Value head) {
      auto partialsOf = [&](Value head) {
        Value kvHead = k.div(head, spec.group());
        return k.ptr(
            k.ptr(from, k.mul(kvHead, spec.partitions * spec.partialBytes())),
            k.mul(k.rem(head, spec.group()), headBytes));
      };
      Value own = partialsOf(head);
      // What comes from other threads comes slowly.
      Value next = partialsOf(k.min(k.add(head, 1), k.cst(spec.heads - 1)));
      Values inits{k.fcst(lanes, kMaskedScore), k.zeros(kLanes)};
      inits.append(vectors, k.zeros(kLanes));
      auto result = k.loop(
          k.cst(0), count, 1, inits, [&](Value partition, ValueRange in) {
            Value offset = k.mul(partition, spec.partialBytes());
            Value partial = k.ptr(own, offset);
            k.prefetch(k.ptr(next, offset), headBytes);
            RunningSoftmax running{in[0], in[1]};
            MergeFactors factors = mergePartition(
                k, spec, running, k.load(lanes, partial, spec.headDim * 4),
                k.load(lanes, partial, (spec.headDim + kLanes) * 4));
            Values next{running.maximum, running.sum};
            for (int64_t i = 0; i < vectors; ++i)
              next.push_back(k.fma(k.load(lanes, partial, i * kLanes * 4),
                                   factors.added,
                                   k.fmul(in[2 + i], factors.old)));
            return next;
          });
      for (int64_t i = 0; i < vectors; ++i)
        k.store(k.fdiv(result[2 + i], result[1]),
                k.ptr(out, k.mul(head, spec.headDim * 4)), i * kLanes * 4);
    });
  });
}
