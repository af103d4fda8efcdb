//===- Encoder.cpp - one vector of each sequence --------------------------===//
#include "isthmus/runtime/Encoder.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <cmath>
#include <numeric>

using namespace isthmus;
using namespace isthmus::rt;

/// The program of a plan, which must not generate.
static const bundle::Program &encoderOf(const Bundle &bundle, int plan) {
  const bundle::Manifest &manifest = bundle.manifest();
  if (plan < 0 || plan >= manifest.plans_size())
    throw Error("{}: has no plan {}", bundle.path().string(), plan);
  const auto &program = manifest.programs(int(manifest.plans(plan).program()));
  if (program.task() == bundle::GENERATE)
    throw Error("{}: program '{}' continues texts; it makes no embeddings",
                bundle.path().string(), program.name());
  return program;
}

Encoder::Encoder(const Bundle &bundle, const LocalOptions &options)
    : content(encoderOf(bundle, options.plan)), runner(bundle, options) {}

size_t Encoder::rowsOf(const Sequence &sequence) const {
  const ModelInfo &model = info();
  const size_t rows = model.inputFeatures
                          ? sequence.values.size() / model.inputFeatures
                          : sequence.ids.size();
  if (rows == 0 || rows > model.contextLength)
    throw Error("a sequence has {} rows; the model takes 1 to {}", rows,
                model.contextLength);
  return rows;
}

std::vector<std::vector<float>>
Encoder::run(std::span<const Sequence> sequences) {
  for (const Sequence &sequence : sequences)
    rowsOf(sequence); // checks
  std::lock_guard lock(mutex);
  const StepLimits &limits = info().limits;
  std::vector<std::vector<float>> results;
  const auto stride =
      int64_t(info().contextLength + kPagePositions - 1) / kPagePositions;
  while (results.size() < sequences.size()) {
    batch = {};
    batch.pageStride = stride;
    int32_t nextPage = 0;
    for (size_t i = results.size(); i < sequences.size(); ++i) {
      const Sequence &sequence = sequences[i];
      const size_t rows = rowsOf(sequence), before = batch.positions.size();
      if (before + rows > limits.tokens ||
          batch.outputs.size() == limits.outputs)
        break;
      const auto own = int32_t(batch.outputs.size());
      batch.ids.insert(batch.ids.end(), sequence.ids.begin(),
                       sequence.ids.end());
      batch.values.insert(batch.values.end(), sequence.values.begin(),
                          sequence.values.end());
      for (size_t row = 0; row < rows; ++row)
        batch.positions.push_back(int32_t(row));
      batch.sequence.insert(batch.sequence.end(), rows, own);
      for (int64_t page = 0; page < stride; ++page)
        batch.pageTables.push_back(
            page * kPagePositions < int64_t(rows) ? nextPage++ : 0);
      const bool first = content.result_row() == bundle::FIRST;
      batch.outputs.push_back(
          {int32_t(first ? before : before + rows - 1), -1, {}});
    }
    runner.compute(batch);
    for (size_t i = 0; i < batch.outputs.size(); ++i) {
      auto row = runner.output(i);
      results.emplace_back(row.begin(), row.end());
    }
  }
  return results;
}

std::vector<double> isthmus::rt::softmax(std::span<const double> logits) {
  const double largest = *std::ranges::max_element(logits);
  std::vector<double> out;
  for (double logit : logits)
    out.push_back(std::exp(logit - largest));
  const double sum = std::accumulate(out.begin(), out.end(), 0.0);
  for (double &value : out)
    value /= sum;
  return out;
}
