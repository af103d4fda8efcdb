//===- Encoder.h - one vector of each sequence ------------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/StepRunner.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
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
  /// depend on what else is run. Several threads may call it: what they ask for
  /// at the same time shares steps, first come, first served. Throws Error if a
  /// sequence is empty or too long, or holds ids outside the vocabulary.
  std::vector<std::vector<float>> run(std::span<const Sequence> sequences);

  /// Steps run so far.
  uint64_t steps() const { return stepCount; }

  const bundle::Program &program() const { return content; }
  const ModelInfo &info() const { return runner.info(); }
  LocalRunner &local() { return runner; }

private:
  /// A sequence that a caller of `run` waits for.
  struct Job {
    const Sequence *sequence;
    size_t rows;
    std::vector<float> result = {};
    std::exception_ptr error = {};
    bool done = false;
  };

  Job check(const Sequence &sequence) const;
  /// Runs one step with jobs from the front of the queue. `lock` is held before
  /// and after, but not meanwhile.
  void runStep(std::unique_lock<std::mutex> &lock);
  void addToBatch(const Job &job);

  const bundle::Program &content;
  LocalRunner runner;
  std::atomic<uint64_t> stepCount = 0;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Job *> queue;
  bool running = false; ///< one of the callers runs a step
  StepBatch batch;      ///< of that caller
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
