//===- Engine.cpp - continuous batching -----------------------------------===//
#include "isthmus/runtime/Engine.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <functional>
#include <optional>

using namespace isthmus::rt;

Engine::Engine(StepRunner &runner, unsigned maxSequences)
    : runner(runner),
      maxSequences(std::min<unsigned>(maxSequences,
                                      unsigned(runner.info().limits.outputs))) {
  for (uint64_t page = runner.info().pages; page-- > 0;)
    freePages.push_back(int32_t(page));
  counters.pagesTotal = freePages.size();
  thread = std::thread([this] { loop(); });
}

Engine::~Engine() {
  {
    std::lock_guard lock(mutex);
    stopping = true;
  }
  wake.notify_all();
  thread.join();
}

uint64_t Engine::pagesFor(const Request &request) const {
  uint64_t positions =
      request.prompt.size() + (request.scoreFrom >= 0 ? 0 : request.maxTokens);
  positions = std::min(positions, runner.info().contextLength);
  return (positions + kPagePositions - 1) / kPagePositions;
}

void Engine::submit(std::shared_ptr<Request> request) {
  const ModelInfo &info = runner.info();
  if (request->prompt.empty())
    throw Error("the prompt is empty");
  if (request->prompt.size() >= info.contextLength + (request->scoreFrom >= 0))
    throw Error("the prompt has {} tokens, the model's context is {}; shorten "
                "the prompt",
                request->prompt.size(), info.contextLength);
  if (pagesFor(*request) > info.pages)
    throw Error("the prompt of {} tokens and an answer of up to {} need {} KV "
                "positions, and {} are reserved; ask for fewer tokens or raise "
                "--context",
                request->prompt.size(), request->maxTokens,
                pagesFor(*request) * kPagePositions,
                info.pages * kPagePositions);
  for (int32_t id : request->prompt)
    if (id < 0 || uint64_t(id) >= info.vocabSize)
      throw Error("token id {} is outside the vocabulary of {}", id,
                  info.vocabSize);
  std::lock_guard lock(mutex);
  if (stopping)
    throw Error("the engine is shutting down");
  waiting.push_back(std::move(request));
  counters.requests++;
  counters.waiting = waiting.size();
  wake.notify_all();
}

EngineStats Engine::stats() const {
  std::lock_guard lock(mutex);
  return counters;
}

void Engine::finish(size_t index, FinishReason reason,
                    const std::string &error) {
  Sequence sequence = std::move(active[index]);
  active.erase(active.begin() + ptrdiff_t(index));
  freePages.insert(freePages.end(), sequence.pages.begin(),
                   sequence.pages.end());
  std::ranges::sort(freePages, std::greater());
  {
    std::lock_guard lock(mutex);
    counters.active = active.size();
    counters.pagesUsed = counters.pagesTotal - freePages.size();
  }
  if (sequence.request->onFinish)
    sequence.request->onFinish(reason, error);
}

void Engine::admit() {
  while (active.size() < maxSequences) {
    std::shared_ptr<Request> request;
    {
      std::lock_guard lock(mutex);
      if (waiting.empty() || pagesFor(*waiting.front()) > freePages.size())
        return;
      request = std::move(waiting.front());
      waiting.pop_front();
      counters.waiting = waiting.size();
      counters.promptTokens += request->prompt.size();
    }
    Sequence sequence;
    sequence.tokens = request->prompt;
    for (uint64_t pages = pagesFor(*request); pages > 0; --pages) {
      sequence.pages.push_back(freePages.back());
      freePages.pop_back();
    }
    sequence.request = std::move(request);
    active.push_back(std::move(sequence));
    std::lock_guard lock(mutex);
    counters.active = active.size();
    counters.pagesUsed = counters.pagesTotal - freePages.size();
  }
}

bool Engine::buildStep() {
  const StepLimits &limits = runner.info().limits;
  batch.ids.clear();
  batch.positions.clear();
  batch.sequence.clear();
  batch.outputs.clear();
  owners.clear();
  advanced.assign(active.size(), 0);
  batch.pageStride = 1;
  for (const Sequence &sequence : active)
    batch.pageStride =
        std::max(batch.pageStride, int64_t(sequence.pages.size()));
  batch.pageTables.assign(active.size() * size_t(batch.pageStride), 0);

  auto addRows = [&](size_t index, size_t count) {
    Sequence &sequence = active[index];
    const Request &request = *sequence.request;
    std::copy(sequence.pages.begin(), sequence.pages.end(),
              batch.pageTables.begin() +
                  ptrdiff_t(index * size_t(batch.pageStride)));
    for (size_t i = 0; i < count; ++i) {
      size_t position = sequence.done + i;
      auto row = int32_t(batch.ids.size());
      bool last = position + 1 == sequence.tokens.size();
      if (request.scoreFrom >= 0) {
        // The row before a scored token predicts it.
        bool scored = !last && position + 1 >= size_t(request.scoreFrom);
        if (scored && batch.outputs.size() >= limits.outputs)
          break;
        if (scored) {
          batch.outputs.push_back({row, sequence.tokens[position + 1], {}});
          owners.push_back({index, false});
        }
      } else if (last) {
        batch.outputs.push_back({row, -1, request.sampling});
        owners.push_back({index, true});
      }
      batch.ids.push_back(sequence.tokens[position]);
      batch.positions.push_back(int32_t(position));
      batch.sequence.push_back(int32_t(index));
      advanced[index]++;
    }
  };
  // Answers first: they have one row each, and somebody is waiting for it.
  for (size_t i = 0; i < active.size(); ++i)
    if (active[i].generated > 0)
      addRows(i, 1);
  for (size_t i = 0; i < active.size(); ++i) {
    if (active[i].generated > 0)
      continue;
    size_t room = limits.tokens - batch.ids.size();
    addRows(i, std::min(room, active[i].tokens.size() - active[i].done));
  }
  return !batch.ids.empty();
}

void Engine::consumeStep() {
  for (size_t i = 0; i < active.size(); ++i)
    active[i].done += advanced[i];
  uint64_t generated = 0;
  // What happens to each sequence is decided first: finishing moves indices.
  std::vector<std::optional<FinishReason>> ended(active.size());
  for (size_t i = 0; i < owners.size(); ++i) {
    Sequence &sequence = active[owners[i].sequence];
    Request &request = *sequence.request;
    std::optional<FinishReason> &end = ended[owners[i].sequence];
    if (!owners[i].sampled) {
      request.logProbabilities.push_back(result.logProbabilities[i]);
      continue;
    }
    int32_t token = result.tokens[i];
    ++sequence.generated;
    ++generated;
    if (std::find(request.stopTokens.begin(), request.stopTokens.end(),
                  token) != request.stopTokens.end()) {
      end = FinishReason::Stop;
      continue;
    }
    sequence.tokens.push_back(token);
    if (request.onToken && !request.onToken(token))
      end = FinishReason::Stop;
    else if (sequence.generated >= request.maxTokens ||
             sequence.tokens.size() >= runner.info().contextLength)
      end = FinishReason::Length;
  }
  {
    std::lock_guard lock(mutex);
    counters.steps++;
    counters.generatedTokens += generated;
  }
  for (size_t i = active.size(); i-- > 0;) {
    if (active[i].request->scoreFrom >= 0 &&
        active[i].done == active[i].tokens.size())
      ended[i] = FinishReason::Length;
    if (ended[i])
      finish(i, *ended[i]);
  }
}

void Engine::loop() {
  while (true) {
    {
      std::unique_lock lock(mutex);
      if (active.empty())
        wake.wait(lock, [&] { return stopping || !waiting.empty(); });
      if (stopping)
        break;
      std::erase_if(waiting, [](const std::shared_ptr<Request> &request) {
        if (!request->cancelled)
          return false;
        if (request->onFinish)
          request->onFinish(FinishReason::Cancelled, "");
        return true;
      });
      counters.waiting = waiting.size();
    }
    for (size_t i = active.size(); i-- > 0;)
      if (active[i].request->cancelled)
        finish(i, FinishReason::Cancelled);
    admit();
    if (!buildStep())
      continue;
    try {
      runner.run(batch, result);
    } catch (const std::exception &error) {
      for (size_t i = active.size(); i-- > 0;)
        finish(i, FinishReason::Failed, error.what());
      continue;
    }
    consumeStep();
  }
  for (size_t i = active.size(); i-- > 0;)
    finish(i, FinishReason::Cancelled, "the engine is shutting down");
  std::lock_guard lock(mutex);
  for (const auto &request : waiting)
    if (request->onFinish)
      request->onFinish(FinishReason::Cancelled, "the engine is shutting down");
}
