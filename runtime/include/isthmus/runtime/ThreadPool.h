//===- ThreadPool.h - pinned threads that walk a step together --*- C++ -*-===//
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace isthmus::rt {

/// A barrier that spins for a while (steps are microseconds apart) and then
/// yields, so that more threads than cores still make progress.
class SpinBarrier {
public:
  explicit SpinBarrier(unsigned threads) : threads(threads) {}

  /// Waits for all threads. The last one to come calls `open` before any goes
  /// on; the others call `idle` again and again while they wait.
  template <typename Open, typename Idle> void wait(Open &&open, Idle &&idle) {
    unsigned seen = generation.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      open();
      arrived.store(0, std::memory_order_relaxed);
      generation.store(seen + 1, std::memory_order_release);
      return;
    }
    for (int spin = 0; generation.load(std::memory_order_acquire) == seen;
         ++spin) {
      idle();
      pause(spin);
    }
  }

private:
  /// Spins first, and lets others run after a while.
  static void pause(int spin);

  const unsigned threads;
  alignas(64) std::atomic<unsigned> arrived = 0;
  alignas(64) std::atomic<unsigned> generation = 0;
};

/// `size` threads, the caller being one of them. The others are pinned to the
/// processors this process may use and sleep between jobs.
class ThreadPool {
public:
  explicit ThreadPool(unsigned size);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  unsigned size() const { return count; }
  /// Runs `job(thread)` on all threads and returns when all are done. `job`
  /// must not throw.
  void run(const std::function<void(unsigned)> &job);

  /// Runs `job(0)` on the caller, and on each other thread as often as it comes
  /// by before that is done: never, if the system lets it sleep. Returns when
  /// nobody is in `job`, which must not throw.
  void runHelped(const std::function<void(unsigned)> &job);

  /// Processors this process may run on.
  static unsigned availableProcessors();

private:
  /// What `running` has beside the helpers while they may come.
  static constexpr uint32_t kOpen = uint32_t(1) << 31;

  void start(const std::function<void(unsigned)> &job, bool helped);
  void help(unsigned index);
  void work(unsigned index);

  const unsigned count;
  std::vector<std::thread> threads;
  const std::function<void(unsigned)> *current = nullptr;
  /// Counts jobs by twos; odd while helpers are asked for.
  alignas(64) std::atomic<uint32_t> epoch = 0;
  /// Threads that have not done their part of a job; helpers that are in one.
  alignas(64) std::atomic<uint32_t> running = 0;
  std::atomic<bool> stopping = false;
};

} // namespace isthmus::rt
