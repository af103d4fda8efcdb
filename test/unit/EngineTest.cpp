#include "isthmus/runtime/Engine.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

#include <future>

using namespace isthmus::rt;

namespace {
/// A model whose next token is the sum of the sequence so far, modulo 97: wrong
/// positions, pages or rows would show in it.
class SumRunner : public StepRunner {
public:
  SumRunner(uint64_t pages, uint64_t rows) {
    model.vocabSize = model.outputFeatures = 97;
    model.contextLength = 256;
    model.limits = {rows, 8};
    model.pages = pages;
    cache.resize(pages * kPagePositions);
  }
  const ModelInfo &info() const override { return model; }
  void run(const StepBatch &batch, StepResult &result) override {
    StepArrays arrays;
    toStepRows(batch, model, arrays); // checks the batch
    if (fail)
      throw Error("a worker is gone");
    largest = std::max(largest, batch.ids.size());
    pageTables = batch.pageTables;
    for (size_t i = 0; i < batch.ids.size(); ++i)
      at(batch, i, batch.positions[i]) = batch.ids[i];
    result = {};
    for (const auto &output : batch.outputs) {
      int64_t sum = 0;
      for (int32_t p = 0; p <= batch.positions[size_t(output.row)]; ++p)
        sum += at(batch, size_t(output.row), p);
      result.tokens.push_back(int32_t(sum % 97));
      result.logProbabilities.push_back(
          output.target >= 0 ? -double(output.target) : 0);
    }
  }
  size_t largest = 0;
  std::vector<int32_t> pageTables; ///< of the last step
  std::atomic<bool> fail = false;

private:
  int32_t &at(const StepBatch &b, size_t row, int32_t position) {
    int32_t page = b.pageTables[size_t(b.sequence[row] * b.pageStride +
                                       position / kPagePositions)];
    return cache[size_t(page * kPagePositions + position % kPagePositions)];
  }
  ModelInfo model;
  std::vector<int32_t> cache;
};

struct Asked {
  std::shared_ptr<Request> request = std::make_shared<Request>();
  std::vector<int32_t> tokens;
  std::promise<std::pair<FinishReason, std::string>> done;
  Asked(std::vector<int32_t> prompt, uint32_t maxTokens) {
    request->prompt = std::move(prompt);
    request->maxTokens = maxTokens;
    request->onToken = [this](int32_t token) {
      tokens.push_back(token);
      return true;
    };
    request->onFinish = [this](FinishReason reason, const std::string &error) {
      done.set_value({reason, error});
    };
  }
};

std::vector<int32_t> expected(std::vector<int32_t> tokens, size_t count) {
  size_t prompt = tokens.size();
  for (size_t i = 0; i < count; ++i) {
    int64_t sum = 0;
    for (int32_t t : tokens)
      sum += t;
    tokens.push_back(int32_t(sum % 97));
  }
  return {tokens.begin() + ptrdiff_t(prompt), tokens.end()};
}
} // namespace

TEST(Engine, ManyRequestsGetTheirOwnAnswers) {
  SumRunner runner(40, 16);
  Engine engine(runner, 6);
  std::vector<std::unique_ptr<Asked>> asked;
  for (int i = 0; i < 25; ++i) {
    std::vector<int32_t> prompt;
    for (int k = 0; k <= i * 3; ++k)
      prompt.push_back((i * 13 + k * 7) % 97);
    asked.push_back(std::make_unique<Asked>(prompt, 5 + i));
    engine.submit(asked.back()->request);
  }
  for (auto &a : asked) {
    EXPECT_EQ(a->done.get_future().get().first, FinishReason::Length);
    EXPECT_EQ(a->tokens, expected(a->request->prompt, a->request->maxTokens));
  }
  EXPECT_LE(runner.largest, 16u);
  EXPECT_EQ(engine.stats().pagesUsed, 0u);
  EXPECT_EQ(engine.stats().requests, 25u);
}

TEST(Engine, StopsAtStopTokensAndAtTheContext) {
  SumRunner runner(40, 64);
  Engine engine(runner, 2);
  Asked stop({1, 2, 3}, 50);
  stop.request->stopTokens = {expected({1, 2, 3}, 3)[2]};
  engine.submit(stop.request);
  EXPECT_EQ(stop.done.get_future().get().first, FinishReason::Stop);
  EXPECT_EQ(stop.tokens, expected({1, 2, 3}, 2));
  Asked full(std::vector<int32_t>(250, 1), 100);
  engine.submit(full.request);
  EXPECT_EQ(full.done.get_future().get().first, FinishReason::Length);
  EXPECT_EQ(full.tokens.size(), 6u);
}

TEST(Engine, PagesOfASequenceLieSideBySide) {
  SumRunner runner(16, 64);
  Engine engine(runner, 1);
  // Of the second one too, which gets what the first one gave back.
  for (int i = 0; i < 2; ++i) {
    Asked asked({1, 2, 3}, 5 * kPagePositions);
    engine.submit(asked.request);
    asked.done.get_future().wait();
    EXPECT_EQ(runner.pageTables, (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
  }
}

TEST(Engine, CancelFreesPages) {
  SumRunner runner(8, 64);
  Engine engine(runner, 2);
  Asked endless({1}, 200);
  std::promise<void> started;
  std::atomic<bool> once = false;
  endless.request->onToken = [&](int32_t) {
    if (!once.exchange(true))
      started.set_value();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return true;
  };
  engine.submit(endless.request);
  started.get_future().wait();
  EXPECT_GT(engine.stats().pagesUsed, 0u);
  endless.request->cancelled = true;
  EXPECT_EQ(endless.done.get_future().get().first, FinishReason::Cancelled);
  EXPECT_EQ(engine.stats().pagesUsed, 0u);
}

TEST(Engine, AFailedStepFailsItsRequestsAndNothingElse) {
  SumRunner runner(8, 64);
  Engine engine(runner, 2);
  runner.fail = true;
  Asked lost({1, 2}, 5);
  engine.submit(lost.request);
  auto [reason, error] = lost.done.get_future().get();
  EXPECT_EQ(reason, FinishReason::Failed);
  EXPECT_EQ(error, "a worker is gone");
  runner.fail = false;
  Asked next({1, 2}, 5);
  engine.submit(next.request);
  EXPECT_EQ(next.done.get_future().get().first, FinishReason::Length);
  EXPECT_EQ(next.tokens, expected({1, 2}, 5));
}

TEST(Engine, RejectsWhatCanNeverRun) {
  SumRunner runner(4, 64);
  Engine engine(runner, 2);
  EXPECT_THROW(engine.submit(Asked({}, 5).request), Error);
  EXPECT_THROW(engine.submit(Asked({97}, 5).request), Error);
  EXPECT_THROW(engine.submit(Asked({-1}, 5).request), Error);
  EXPECT_THROW(engine.submit(Asked(std::vector<int32_t>(256, 1), 5).request),
               Error);
  EXPECT_THROW(engine.submit(Asked(std::vector<int32_t>(100, 1), 100).request),
               Error);
}

TEST(Engine, ScoresPrompts) {
  SumRunner runner(8, 16);
  Engine engine(runner, 2);
  Asked score({5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 1);
  score.request->scoreFrom = 9;
  engine.submit(score.request);
  EXPECT_EQ(score.done.get_future().get().first, FinishReason::Length);
  EXPECT_EQ(score.request->logProbabilities,
            (std::vector<double>{-14, -15, -16}));
}
