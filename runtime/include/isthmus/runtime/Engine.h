//===- Engine.h - continuous batching ---------------------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/StepRunner.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace isthmus::rt {

enum class FinishReason { Stop, Length, Cancelled, Failed };

/// One request and what became of it. Filled by the caller, then given to
/// Engine::submit; callbacks come from the engine's thread.
struct Request {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  uint32_t maxTokens = 128;
  std::vector<int32_t> stopTokens; ///< these end the answer and are not given
  /// Score the prompt instead of continuing it: log-probabilities of
  /// prompt[scoreFrom...] are collected in `logProbabilities`.
  int32_t scoreFrom = -1;
  /// Gets each token; returns false to end the request (a stop string matched).
  std::function<bool(int32_t token)> onToken;
  /// Called once, after the last token. `error` is empty unless Failed.
  std::function<void(FinishReason, const std::string &error)> onFinish;

  std::vector<double> logProbabilities;
  std::atomic<bool> cancelled = false;
};

struct EngineStats {
  uint64_t requests = 0, promptTokens = 0, generatedTokens = 0, steps = 0;
  uint64_t active = 0, waiting = 0, pagesUsed = 0, pagesTotal = 0;
};

/// Runs all requests together: each step takes one token of every answering
/// sequence and fills the rest with chunks of prompts. A request is admitted
/// when the pages for its longest possible answer are free, so nothing is ever
/// evicted.
class Engine {
public:
  /// `maxSequences` bounds how many answer at once. `runner` must outlive it.
  explicit Engine(StepRunner &runner, unsigned maxSequences = 32);
  ~Engine(); ///< cancels what is running

  /// Throws Error if the request can never run (too long, empty).
  void submit(std::shared_ptr<Request> request);
  EngineStats stats() const;
  const ModelInfo &info() const { return runner.info(); }

private:
  struct Sequence {
    std::shared_ptr<Request> request;
    std::vector<int32_t> tokens; ///< prompt and answer
    size_t done = 0;             ///< tokens whose keys are in the cache
    uint32_t generated = 0;
    std::vector<int32_t> pages;
  };

  void loop();
  void admit();
  /// Rows of the next step; false if there is nothing to run.
  bool buildStep();
  void consumeStep();
  void finish(size_t index, FinishReason reason, const std::string &error = "");
  uint64_t pagesFor(const Request &request) const;

  StepRunner &runner;
  const unsigned maxSequences;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::shared_ptr<Request>> waiting;
  EngineStats counters;
  bool stopping = false;

  // Only the engine's thread touches these.
  std::vector<Sequence> active;
  /// Descending: a sequence gets the first ones, which lie side by side.
  std::vector<int32_t> freePages;
  StepBatch batch;
  StepResult result;
  struct OutputOwner {
    size_t sequence;
    bool sampled;
  };
  std::vector<OutputOwner> owners;
  std::vector<size_t> advanced; ///< rows of each sequence in the step

  std::thread thread;
};

} // namespace isthmus::rt
