//===- Partitions.h - results of attention's partitions ---------*- C++ -*-===//
//
// Attention works in partitions of 256 positions, which are merged in ascending
// order by the same operations, whoever merges them.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/Kernels.h"

namespace isthmus {

/// Stands for minus infinity without its NaNs.
inline constexpr double kMaskedScore = -1e30;

/// Scores are kept in what the exponential takes: binary logarithms where
/// probabilities are rounded.
inline double scoreUnit(const AttentionSpec &spec) {
  return spec.valuesAtOnce() == 2 ? 1.44269504088896341 : 1.0;
}

/// Softmax over partitions that come one after another: the largest score so
/// far, and the sum of exponentials relative to it, the same in all lanes.
struct RunningSoftmax {
  mlir::Value maximum, sum;
};
/// What the outputs so far, and those of the new partition, are multiplied by.
struct MergeFactors {
  mlir::Value old, added;
};
MergeFactors mergePartition(KernelBuilder &k, const AttentionSpec &spec,
                            RunningSoftmax &running, mlir::Value maximum,
                            mlir::Value sum);

} // namespace isthmus
