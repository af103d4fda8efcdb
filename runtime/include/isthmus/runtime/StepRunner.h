//===- StepRunner.h - runs one step of a model, wherever it is --*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Sampler.h"
#include "isthmus/runtime/StageExecutor.h"

#include <memory>
#include <vector>

namespace isthmus::rt {

/// One step over a ragged batch of rows: any mix of prompt chunks and decodes.
struct StepBatch {
  std::vector<int32_t>
      ids; ///< a token a row, or none if the model takes values
  std::vector<float> values; ///< [rows][inputFeatures], or none
  std::vector<int32_t> positions, sequence;
  std::vector<int32_t> pageTables; ///< [sequences][pageStride]
  int64_t pageStride = 0;

  /// A row whose logits are wanted, and what for.
  struct Output {
    int32_t row;
    int32_t target = -1; ///< >= 0: give this token's log-probability
    SamplingParams sampling;
  };
  std::vector<Output> outputs;
};

/// One entry an output of the batch.
struct StepResult {
  std::vector<int32_t> tokens;
  std::vector<double> logProbabilities; ///< of targets; 0 elsewhere
};

/// What the engine needs to know of a model.
struct ModelInfo {
  uint64_t vocabSize = 0, contextLength = 0;
  uint64_t inputFeatures = 0; ///< values in a row; 0 if it takes token ids
  uint64_t outputFeatures = 0;
  StepLimits limits;
  uint64_t pages = 0; ///< KV pages that sequences may use
};

/// Runs steps: in this process, or on workers.
class StepRunner {
public:
  virtual ~StepRunner() = default;
  virtual const ModelInfo &info() const = 0;
  /// Runs one step. Throws Error if a worker is gone.
  virtual void run(const StepBatch &batch, StepResult &result) = 0;
};

/// The sizes of a program.
ModelInfo describe(const bundle::Program &program, const StepLimits &limits,
                   uint64_t contextTokens);

/// What StepRows points to beside the batch.
struct StepArrays {
  std::vector<int32_t> outputRows, lengths;
};

/// The arrays of a batch as kernels see them. Throws Error if a row points
/// outside the vocabulary, the tables or the pages.
StepRows toStepRows(const StepBatch &batch, const ModelInfo &info,
                    StepArrays &arrays);

/// Samples or scores the outputs of a batch from logits.
void finishStep(const StepBatch &batch, const std::byte *logits,
                uint64_t rowBytes, uint64_t vocabSize, Sampler &sampler,
                StepResult &result);

struct LocalOptions {
  unsigned threads = 0;       ///< 0: all processors
  uint64_t contextTokens = 0; ///< KV positions over all sequences; 0: a default
  StepLimits limits;
  int plan = 0;
};

/// Runs all stages of a plan one after another in this process.
class LocalRunner : public StepRunner {
public:
  /// Checks digests of what it loads. The caller has checked trust.
  LocalRunner(const Bundle &bundle, const LocalOptions &options);

  const ModelInfo &info() const override { return model; }
  void run(const StepBatch &batch, StepResult &result) override;

  /// Runs a step without sampling.
  void compute(const StepBatch &batch);
  /// Result of output `index` of the last step: `outputFeatures` values.
  std::span<const float> output(size_t index) const;
  /// Bytes reserved for weights, activations and KV cache of all stages.
  uint64_t peakBytes() const { return peak; }
  const KernelLibrary &kernels() const { return library; }
  ThreadPool &threads() { return pool; }
  std::span<const std::unique_ptr<StageExecutor>> executors() const {
    return stages;
  }
  /// The rows of the last step.
  const StepRows &lastStep() const { return step; }

private:
  ModelInfo model;
  KernelLibrary library;
  ThreadPool pool;
  std::vector<std::unique_ptr<StageExecutor>> stages;
  StepArrays arrays;
  StepRows step{};
  Sampler sampler;
  uint64_t peak = 0;
};

/// Ranges of a stage's weights, for Bundle::verify.
std::vector<Bundle::Range> weightRanges(const bundle::Manifest &manifest,
                                        const LinkedStage &stage);

} // namespace isthmus::rt
