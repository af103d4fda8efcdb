//===- StageExecutor.h - runs the launches of one stage ---------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/KernelLibrary.h"
#include "isthmus/runtime/Linker.h"
#include "isthmus/runtime/ThreadPool.h"

#include <map>
#include <memory>
#include <span>

namespace isthmus::rt {

/// Anonymous memory, zeroed, aligned to pages, resident only where touched; in
/// huge pages where the system grants them.
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
  void *mapped = nullptr;
  size_t length = 0, mappedBytes = 0;
};

/// A linked stage bound to addresses: arena, weights mapped from the bundle,
/// and KV pages for `pages` pages. `run` allocates nothing.
///
/// All threads walk the list of launches together (docs/execution.md). Each
/// owns a run of a launch's tiles, takes them piece by piece, and then helps
/// the others. While it waits at a barrier it fetches the weights that it needs
/// next.
class StageExecutor {
public:
  /// Links `stage` of `plan` for both regimes. Refers to all its arguments.
  StageExecutor(const Bundle &bundle, const KernelLibrary &kernels,
                const bundle::Plan &plan, int stage, const StepLimits &limits,
                uint64_t pages, ThreadPool &pool);

  /// Runs all launches for the rows of `step`. The input (if the stage has one)
  /// must have been written to `input()` before.
  void run(const StepRows &step);

  /// When a thread worked on a launch, in nanoseconds of the steady clock;
  /// `end` is 0 if it had nothing to do.
  struct Span {
    int64_t begin = 0, end = 0;
  };
  /// Makes later steps record their spans.
  void record();
  /// The spans of launch `index` of `lastRun()` in the last step, one a thread.
  std::span<const Span> spans(size_t index) const {
    return std::span(recorded).subspan(index * pool.size(), pool.size());
  }

  /// The stage as large steps run it.
  const LinkedStage &stage() const { return large.linked; }
  /// The stage as the last step ran it.
  const LinkedStage &lastRun() const { return last->linked; }
  /// First row of the stage's input and output.
  std::byte *input() { return arena.data() + stage().input.offset; }
  const std::byte *output() const {
    return arena.data() + stage().output.offset;
  }

private:
  /// A launch with the arguments of each thread; one for all if none differ.
  struct Bound {
    Kernel kernel;
    const Args *args;
    size_t argsStride; ///< 0 or 1
    int64_t tiles, rowsPerTile;
    bool perPartition, replicate;
    bundle::RowKind rows;
    /// Weights that the launch streams, each in the order of its tiles.
    std::vector<std::span<const std::byte>> weights;
  };
  struct Program {
    LinkedStage linked;
    std::vector<Args> args;
    std::vector<Bound> launches;
    /// First launch of each phase, and the end. Launches of a phase run without
    /// a barrier between them.
    std::vector<size_t> phases;
  };
  /// The next tile of a thread's run of one launch of the phase.
  struct alignas(64) Cursor {
    std::atomic<int64_t> next;
  };

  void bind(Program &program, const Bundle &bundle,
            const KernelLibrary &kernels);
  void openPhase(const Program &program, size_t phase);
  void runPhase(const Program &program, size_t phase, unsigned thread);
  void runTiles(const Program &program, size_t index, size_t slot,
                unsigned thread);
  int64_t tilesOf(const Bound &launch) const;
  /// First tile of the run of `thread`.
  int64_t runStart(const Bound &launch, int64_t total, unsigned thread) const;

  ThreadPool &pool;
  Program small, large;
  const Program *last = &large;
  StepRows step{}; ///< of the step that runs
  HostMemory arena, privateMemory, scratch;
  size_t privateStride, scratchStride;
  HostMemory states;
  std::map<uint32_t, std::byte *> stateBase;
  std::unique_ptr<Cursor[]> cursors; ///< [launches of a phase][threads]
  SpinBarrier barrier;
  std::vector<Span> recorded; ///< [launches][threads], or empty
};

} // namespace isthmus::rt
