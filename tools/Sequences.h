//===- Sequences.h - steps to be timed --------------------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/StepRunner.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <vector>

namespace isthmus::cli {

/// Ids spread over the vocabulary, the same in every run.
inline std::vector<int32_t> someIds(size_t count, uint64_t vocab,
                                    uint64_t seed) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    ids.push_back(int32_t((seed >> 33) % vocab));
  }
  return ids;
}

/// Sequences of equal length that are driven step by step, without an engine.
class Sequences {
public:
  Sequences(rt::StepRunner &runner, size_t count)
      : runner(runner), next(count), done(0) {
    batch.pageStride = int64_t(runner.info().pages / count);
    for (int64_t page = 0; page < batch.pageStride * int64_t(count); ++page)
      batch.pageTables.push_back(int32_t(page));
  }

  /// Runs `ids` as the continuation of every sequence, and keeps each one's
  /// next token.
  void prefill(std::span<const int32_t> ids) {
    for (size_t sequence = 0; sequence < next.size(); ++sequence) {
      size_t position = done;
      for (auto rest = ids; !rest.empty();) {
        size_t count =
            std::min<size_t>(rest.size(), runner.info().limits.tokens);
        batch.ids.assign(rest.begin(), rest.begin() + ptrdiff_t(count));
        batch.positions.clear();
        for (size_t i = 0; i < count; ++i)
          batch.positions.push_back(int32_t(position++));
        batch.sequence.assign(count, int32_t(sequence));
        batch.outputs.clear();
        if (count == rest.size())
          batch.outputs = {{int32_t(count) - 1, -1, {0.0f, 1.0f, 0, 0}}};
        runner.run(batch, result);
        rest = rest.subspan(count);
      }
      next[sequence] = result.tokens[0];
    }
    done += ids.size();
  }

  /// One greedy token for every sequence.
  void decode() {
    batch.ids = next;
    batch.positions.assign(next.size(), int32_t(done));
    batch.sequence.clear();
    batch.outputs.clear();
    for (size_t i = 0; i < next.size(); ++i) {
      batch.sequence.push_back(int32_t(i));
      batch.outputs.push_back({int32_t(i), -1, {0.0f, 1.0f, 0, 0}});
    }
    runner.run(batch, result);
    next = result.tokens;
    ++done;
  }

  void restart(uint64_t seed) {
    done = 0;
    next = someIds(next.size(), runner.info().vocabSize, seed);
  }

private:
  rt::StepRunner &runner;
  rt::StepBatch batch;
  rt::StepResult result;
  std::vector<int32_t> next;
  size_t done; ///< positions of each sequence
};

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <typename Work> double secondsOf(Work &&work) {
  auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

} // namespace isthmus::cli
