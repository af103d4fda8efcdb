//===- StepRunner.cpp - runs one step of a model in this process ----------===//
#include "isthmus/runtime/StepRunner.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <cstring>

using namespace isthmus::rt;

ModelInfo isthmus::rt::describe(const bundle::Program &program,
                                const StepLimits &limits,
                                uint64_t contextTokens) {
  ModelInfo info;
  info.vocabSize = program.vocab_size();
  info.contextLength = program.context_length();
  info.inputFeatures = program.input_features();
  info.outputFeatures = outputFeatures(program);
  info.limits = limits;
  info.pages = (contextTokens + kPagePositions - 1) / kPagePositions;
  return info;
}

StepRows isthmus::rt::toStepRows(const StepBatch &batch, const ModelInfo &info,
                                 StepArrays &arrays) {
  const size_t rows = batch.positions.size();
  if (rows == 0 || rows > info.limits.tokens ||
      batch.outputs.size() > info.limits.outputs ||
      batch.ids.size() != (info.inputFeatures ? 0 : rows) ||
      batch.values.size() != rows * info.inputFeatures ||
      batch.sequence.size() != rows || batch.pageStride <= 0 ||
      batch.pageTables.size() % size_t(batch.pageStride) != 0)
    throw Error("malformed step: {} rows, {} outputs", rows,
                batch.outputs.size());
  const auto tables = int64_t(batch.pageTables.size()) / batch.pageStride;
  for (int32_t id : batch.ids)
    if (id < 0 || uint64_t(id) >= info.vocabSize)
      throw Error("token id {} is outside the vocabulary of {}", id,
                  info.vocabSize);
  arrays.lengths.assign(size_t(tables), 0);
  for (size_t i = 0; i < rows; ++i) {
    if (uint64_t(batch.positions[i]) >= info.contextLength)
      throw Error("position {} is outside the model's context of {}",
                  batch.positions[i], info.contextLength);
    if (batch.sequence[i] < 0 || batch.sequence[i] >= tables ||
        batch.positions[i] < 0 ||
        batch.positions[i] / kPagePositions >= batch.pageStride)
      throw Error("malformed step: row {} lies outside its page table", i);
    int32_t &length = arrays.lengths[size_t(batch.sequence[i])];
    length = std::max(length, batch.positions[i] + 1);
  }
  for (int32_t page : batch.pageTables)
    if (page < 0 || uint64_t(page) >= info.pages)
      throw Error("malformed step: page {} of {}", page, info.pages);
  arrays.outputRows.clear();
  for (const StepBatch::Output &output : batch.outputs) {
    if (output.row < 0 || size_t(output.row) >= rows ||
        output.target >= int64_t(info.vocabSize))
      throw Error("malformed step: output row {}", output.row);
    arrays.outputRows.push_back(output.row);
  }
  StepRows step;
  step.tokens = int64_t(rows);
  step.outputs = int64_t(arrays.outputRows.size());
  step.ids = batch.ids.data();
  step.positions = batch.positions.data();
  step.sequence = batch.sequence.data();
  step.pageTables = batch.pageTables.data();
  step.pageStride = batch.pageStride;
  step.outputRows = arrays.outputRows.data();
  step.lengths = arrays.lengths.data();
  int32_t longest =
      *std::max_element(batch.positions.begin(), batch.positions.end());
  step.partitions = longest / kPartitionPositions + 1;
  return step;
}

void isthmus::rt::finishStep(const StepBatch &batch, const std::byte *logits,
                             uint64_t rowBytes, uint64_t vocabSize,
                             Sampler &sampler, StepResult &result) {
  result.tokens.clear();
  result.logProbabilities.clear();
  for (size_t i = 0; i < batch.outputs.size(); ++i) {
    const StepBatch::Output &output = batch.outputs[i];
    std::span<const float> row(
        reinterpret_cast<const float *>(logits + i * rowBytes), vocabSize);
    bool score = output.target >= 0;
    result.logProbabilities.push_back(
        score ? Sampler::logProbability(row, output.target) : 0.0);
    result.tokens.push_back(
        score ? output.target
              : sampler.sample(row, output.sampling,
                               batch.positions[size_t(output.row)]));
  }
}

std::vector<Bundle::Range>
isthmus::rt::weightRanges(const bundle::Manifest &manifest,
                          const LinkedStage &stage) {
  std::vector<Bundle::Range> ranges;
  for (uint32_t index : stage.weights) {
    const auto &weight = manifest.weights(int(index));
    ranges.push_back({weight.blob(), weight.offset(), weight.size()});
  }
  return ranges;
}

/// Rows of a step of an encoder. From 512 to 1,024 ViT-B/16 in int8 gained a
/// tenth, beyond nothing.
static constexpr uint64_t kEncoderRows = 1024;

LocalRunner::LocalRunner(const Bundle &bundle, const LocalOptions &options)
    : library(bundle),
      pool(options.threads ? options.threads
                           : ThreadPool::availableProcessors()) {
  const bundle::Manifest &manifest = bundle.manifest();
  if (options.plan < 0 || options.plan >= manifest.plans_size())
    throw Error("{}: has no plan {}", bundle.path().string(), options.plan);
  const bundle::Plan &plan = manifest.plans(options.plan);
  const bundle::Program &program = manifest.programs(int(plan.program()));
  uint64_t positions =
      options.contextTokens ? options.contextTokens : plan.context_tokens();
  StepLimits limits = options.limits;
  if (program.task() != bundle::GENERATE) {
    // Sequences are whole in a step, and keep nothing after it. The more rows,
    // the fewer times the weights are read.
    limits.tokens =
        std::max({limits.tokens, kEncoderRows, program.context_length()});
    positions = limits.tokens + limits.outputs * uint64_t(kPagePositions);
  }
  model = describe(program, limits, positions);
  for (int i = 0; i < plan.stages_size(); ++i) {
    LinkedStage stage = linkStage(manifest, plan, i, limits);
    peak += stage.peakBytes(positions, pool.size());
    bundle.verify(weightRanges(manifest, stage), pool.size());
    stages.push_back(std::make_unique<StageExecutor>(
        bundle, library, plan, i, limits, model.pages, pool));
  }
}

void LocalRunner::run(const StepBatch &batch, StepResult &result) {
  compute(batch);
  finishStep(batch, stages.back()->output(),
             stages.back()->stage().output.rowBytes, model.vocabSize, sampler,
             result);
}

void LocalRunner::compute(const StepBatch &batch) {
  step = toStepRows(batch, model, arrays);
  const size_t rowBytes = model.inputFeatures * sizeof(float);
  for (size_t i = 0; rowBytes > 0 && i < batch.positions.size(); ++i)
    std::memcpy(stages[0]->input() + i * stages[0]->stage().input.rowBytes,
                batch.values.data() + i * model.inputFeatures, rowBytes);
  for (size_t i = 0; i < stages.size(); ++i) {
    stages[i]->run(step);
    if (i + 1 == stages.size())
      break;
    const LinkedBuffer &from = stages[i]->stage().output;
    std::memcpy(stages[i + 1]->input(), stages[i]->output(),
                from.rowBytes * batch.positions.size());
  }
}

std::span<const float> LocalRunner::output(size_t index) const {
  const StageExecutor &last = *stages.back();
  return {reinterpret_cast<const float *>(last.output() +
                                          index * last.stage().output.rowBytes),
          model.outputFeatures};
}
