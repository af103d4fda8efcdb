//===- StepRunner.cpp - runs one step of a model in this process ----------===//
#include "isthmus/runtime/StepRunner.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <cstring>

using namespace isthmus::rt;

StepRows isthmus::rt::toStepRows(const StepBatch &batch, const ModelInfo &info,
                                 std::vector<int32_t> &outputRows) {
  const size_t rows = batch.ids.size();
  if (rows == 0 || rows > info.limits.tokens ||
      batch.outputs.size() > info.limits.outputs ||
      batch.positions.size() != rows || batch.sequence.size() != rows ||
      batch.pageStride <= 0 ||
      batch.pageTables.size() % size_t(batch.pageStride) != 0)
    throw Error("malformed step: {} rows, {} outputs", rows,
                batch.outputs.size());
  const auto tables = int64_t(batch.pageTables.size()) / batch.pageStride;
  for (size_t i = 0; i < rows; ++i) {
    if (batch.ids[i] < 0 || uint64_t(batch.ids[i]) >= info.vocabSize)
      throw Error("token id {} is outside the vocabulary of {}", batch.ids[i],
                  info.vocabSize);
    if (uint64_t(batch.positions[i]) >= info.contextLength)
      throw Error("position {} is outside the model's context of {}",
                  batch.positions[i], info.contextLength);
    if (batch.sequence[i] < 0 || batch.sequence[i] >= tables ||
        batch.positions[i] < 0 ||
        batch.positions[i] / kPagePositions >= batch.pageStride)
      throw Error("malformed step: row {} lies outside its page table", i);
  }
  for (int32_t page : batch.pageTables)
    if (page < 0 || uint64_t(page) >= info.pages)
      throw Error("malformed step: page {} of {}", page, info.pages);
  outputRows.clear();
  for (const StepBatch::Output &output : batch.outputs) {
    if (output.row < 0 || size_t(output.row) >= rows ||
        output.target >= int64_t(info.vocabSize))
      throw Error("malformed step: output row {}", output.row);
    outputRows.push_back(output.row);
  }
  StepRows step;
  step.tokens = int64_t(rows);
  step.outputs = int64_t(outputRows.size());
  step.ids = batch.ids.data();
  step.positions = batch.positions.data();
  step.sequence = batch.sequence.data();
  step.pageTables = batch.pageTables.data();
  step.pageStride = batch.pageStride;
  step.outputRows = outputRows.data();
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
  model.vocabSize = program.vocab_size();
  model.contextLength = program.context_length();
  model.limits = options.limits;
  model.pages = (positions + kPagePositions - 1) / kPagePositions;
  for (int i = 0; i < plan.stages_size(); ++i) {
    LinkedStage stage = linkStage(manifest, plan, i, options.limits);
    peak += stage.peakBytes(positions, pool.size());
    bundle.verify(weightRanges(manifest, stage), pool.size());
    stages.push_back(std::make_unique<StageExecutor>(
        bundle, library, plan, i, options.limits, model.pages, pool));
  }
}

void LocalRunner::run(const StepBatch &batch, StepResult &result) {
  step = toStepRows(batch, model, outputRows);
  for (size_t i = 0; i < stages.size(); ++i) {
    stages[i]->run(step);
    if (i + 1 == stages.size())
      break;
    const LinkedBuffer &from = stages[i]->stage().output;
    std::memcpy(stages[i + 1]->input(), stages[i]->output(),
                from.rowBytes * batch.ids.size());
  }
  finishStep(batch, stages.back()->output(),
             stages.back()->stage().output.rowBytes, model.vocabSize, sampler,
             result);
}

std::span<const float> LocalRunner::logits(size_t index) const {
  const StageExecutor &last = *stages.back();
  return {reinterpret_cast<const float *>(last.output() +
                                          index * last.stage().output.rowBytes),
          model.vocabSize};
}
