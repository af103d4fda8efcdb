//===- StageExecutor.h - runs the launches of one stage ---------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/KernelLibrary.h"
#include "isthmus/runtime/Linker.h"
#include "isthmus/runtime/ThreadPool.h"

#include <memory>
#include <span>

namespace isthmus::rt {

/// Anonymous memory, zeroed, aligned to pages, resident only where touched.
class HostMemory {
public:
  HostMemory() = default;
  explicit HostMemory(size_t bytes);
  ~HostMemory();
  HostMemory(HostMemory &&other) noexcept;
  HostMemory &operator=(HostMemory &&other) noexcept;
  std::byte *data() const { return base; }
  size_t size() const { return length; }

private:
  std::byte *base = nullptr;
  size_t length = 0;
};

/// A linked stage bound to addresses: arena, weights mapped from the bundle,
/// and KV pages for `pages` pages. `run` allocates nothing.
class StageExecutor {
public:
  StageExecutor(const Bundle &bundle, const KernelLibrary &kernels,
                LinkedStage stage, uint64_t pages, ThreadPool &pool);

  /// Runs all launches for the rows of `step`. The input (if the stage has one)
  /// must have been written to `input()` before.
  void run(const StepRows &step);

  /// When a thread worked on a launch, in nanoseconds of the steady clock;
  /// `end` is 0 if it had nothing to do.
  struct Span {
    int64_t begin = 0, end = 0;
  };
  /// Makes later steps record their spans.
  void record() { recorded.resize(launches.size() * pool.size()); }
  /// The spans of launch `index` in the last step, one a thread.
  std::span<const Span> spans(size_t index) const {
    return std::span(recorded).subspan(index * pool.size(), pool.size());
  }

  const LinkedStage &stage() const { return linked; }
  /// First row of the stage's input and output.
  std::byte *input() { return arena.data() + linked.input.offset; }
  const std::byte *output() const {
    return arena.data() + linked.output.offset;
  }

private:
  struct Bound {
    Kernel kernel;
    Args args;
    uint64_t tiles;
    bool perRow, wait;
    bundle::RowKind rows;
  };

  LinkedStage linked;
  ThreadPool &pool;
  HostMemory arena, scratch;
  std::vector<HostMemory> states;
  std::vector<Bound> launches;
  struct alignas(64) Counter {
    std::atomic<int64_t> next;
  };
  std::unique_ptr<Counter[]> counters;
  SpinBarrier barrier;
  std::vector<Span> recorded; ///< [launches][threads], or empty
};

} // namespace isthmus::rt
