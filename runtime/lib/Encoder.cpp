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

Encoder::Job Encoder::check(const Sequence &sequence) const {
  const ModelInfo &model = runner.info();
  const uint64_t features = model.inputFeatures;
  const size_t rows =
      features ? sequence.values.size() / features : sequence.ids.size();
  if (rows == 0 || rows > model.contextLength)
    throw Error("{} {} given; the model takes 1 to {} at once{}", rows,
                features ? "rows" : "tokens", model.contextLength,
                features ? "" : ": shorten the text or cut it into parts");
  if (sequence.values.size() != rows * features ||
      sequence.ids.size() != (features ? 0 : rows))
    throw Error("the model takes {}",
                features ? "values, not token ids" : "token ids, not values");
  for (int32_t id : sequence.ids)
    if (id < 0 || uint64_t(id) >= model.vocabSize)
      throw Error("token id {} is outside the vocabulary of {}", id,
                  model.vocabSize);
  return {&sequence, rows};
}

void Encoder::addToBatch(const Job &job) {
  const auto own = int32_t(batch.outputs.size());
  const size_t before = batch.positions.size();
  // Pages last for the step: they are given out from the first one on.
  int32_t nextPage = 0;
  for (int32_t page : batch.pageTables)
    nextPage = std::max(nextPage, page + 1);
  for (int64_t page = 0; page < batch.pageStride; ++page)
    batch.pageTables.push_back(
        page * kPagePositions < int64_t(job.rows) ? nextPage++ : 0);
  batch.ids.insert(batch.ids.end(), job.sequence->ids.begin(),
                   job.sequence->ids.end());
  batch.values.insert(batch.values.end(), job.sequence->values.begin(),
                      job.sequence->values.end());
  for (size_t row = 0; row < job.rows; ++row)
    batch.positions.push_back(int32_t(row));
  batch.sequence.insert(batch.sequence.end(), job.rows, own);
  const bool first = content.result_row() == bundle::FIRST;
  batch.outputs.push_back(
      {int32_t(first ? before : before + job.rows - 1), -1, {}});
}

void Encoder::runStep(std::unique_lock<std::mutex> &lock) {
  const StepLimits &limits = runner.info().limits;
  batch = {};
  batch.pageStride = int64_t(runner.info().contextLength + kPagePositions - 1) /
                     kPagePositions;
  std::vector<Job *> jobs;
  std::exception_ptr error;
  try {
    while (!queue.empty() && jobs.size() < limits.outputs &&
           batch.positions.size() + queue.front()->rows <= limits.tokens) {
      jobs.push_back(queue.front());
      queue.pop_front();
      addToBatch(*jobs.back());
    }
    lock.unlock();
    runner.compute(batch);
    for (size_t i = 0; i < jobs.size(); ++i) {
      auto row = runner.output(i);
      jobs[i]->result.assign(row.begin(), row.end());
    }
  } catch (...) {
    error = std::current_exception();
  }
  ++stepCount;
  if (!lock.owns_lock())
    lock.lock();
  for (Job *job : jobs) {
    job->error = error;
    job->done = true;
  }
}

std::vector<std::vector<float>>
Encoder::run(std::span<const Sequence> sequences) {
  std::vector<Job> jobs;
  for (const Sequence &sequence : sequences)
    jobs.push_back(check(sequence));
  std::unique_lock lock(mutex);
  for (Job &job : jobs)
    queue.push_back(&job);
  // Whoever finds no step running runs one, perhaps for others.
  while (!std::ranges::all_of(jobs, &Job::done)) {
    if (running) {
      changed.wait(lock);
      continue;
    }
    running = true;
    runStep(lock);
    running = false;
    changed.notify_all();
  }
  lock.unlock();
  std::vector<std::vector<float>> results;
  for (Job &job : jobs) {
    if (job.error)
      std::rethrow_exception(job.error);
    results.push_back(std::move(job.result));
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
