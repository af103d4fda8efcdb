//===- Encoder.h - one vector of each sequence ------------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/StepRunner.h"

#include <mutex>

namespace isthmus::rt {

/// Runs a program that makes one vector of a whole sequence: an embedding, or
/// the logits of classes. Sequences share steps as far as they fit.
class Encoder {
public:
  /// Token ids, or rows of `inputFeatures` values: what the program takes.
  struct Sequence {
    std::vector<int32_t> ids;
    std::vector<float> values;
  };

  /// \param plan index in the manifest, of a plan whose program does not
  ///             generate. Throws Error otherwise. `bundle` must outlive it.
  Encoder(const Bundle &bundle, const LocalOptions &options);

  /// The result of each sequence: `outputFeatures` values. Results do not
  /// depend on what else is run. Throws Error if a sequence is empty or too
  /// long. May be called by several threads, which take turns.
  std::vector<std::vector<float>> run(std::span<const Sequence> sequences);

  const bundle::Program &program() const { return content; }
  const ModelInfo &info() const { return runner.info(); }
  LocalRunner &local() { return runner; }

private:
  size_t rowsOf(const Sequence &sequence) const;

  const bundle::Program &content;
  LocalRunner runner;
  StepBatch batch;
  std::mutex mutex;
};

/// Probabilities of classes from their logits.
std::vector<double> softmax(std::span<const double> logits);

/// Index of the plan for the first program that `wanted` accepts; -1: none.
template <typename Predicate>
int findPlan(const bundle::Manifest &manifest, Predicate wanted) {
  for (int i = 0; i < manifest.plans_size(); ++i)
    if (wanted(manifest.programs(int(manifest.plans(i).program()))))
      return i;
  return -1;
}

} // namespace isthmus::rt
