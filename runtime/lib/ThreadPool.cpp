//===- ThreadPool.cpp - pinned threads that walk a step together ----------===//
#include "isthmus/runtime/ThreadPool.h"

#include <algorithm>
#include <pthread.h>
#include <sched.h>

using namespace isthmus::rt;

static constexpr int kSpins = 20000;

static inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void SpinBarrier::pause(int spin) {
  if (spin < kSpins)
    relax();
  else
    std::this_thread::yield();
}

unsigned ThreadPool::availableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0)
    return std::max(1u, std::thread::hardware_concurrency());
  return unsigned(std::max(1, CPU_COUNT(&set)));
}

ThreadPool::ThreadPool(unsigned size) : count(std::max(1u, size)) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  bool known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
  std::vector<int> processors;
  for (int cpu = 0; known && cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &allowed))
      processors.push_back(cpu);
  for (unsigned i = 1; i < count; ++i) {
    threads.emplace_back([this, i] { work(i); });
    // The caller keeps the first processor; nobody is pinned where there are
    // more threads than processors.
    if (count > processors.size())
      continue;
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(processors[i], &own);
    pthread_setaffinity_np(threads.back().native_handle(), sizeof(own), &own);
  }
}

ThreadPool::~ThreadPool() {
  stopping = true;
  epoch.fetch_add(2);
  epoch.notify_all();
  for (std::thread &thread : threads)
    thread.join();
}

void ThreadPool::start(const std::function<void(unsigned)> &job, bool helped) {
  current = &job;
  running.store(helped ? kOpen : count - 1, std::memory_order_release);
  const uint32_t next = (epoch.load(std::memory_order_relaxed) & ~1u) + 2;
  epoch.store(next | uint32_t(helped), std::memory_order_release);
  epoch.notify_all();
  job(0);
}

static void waitForNone(const std::atomic<uint32_t> &running) {
  for (int spin = 0; running.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins)
      relax();
    else
      std::this_thread::yield();
  }
}

void ThreadPool::run(const std::function<void(unsigned)> &job) {
  start(job, false);
  waitForNone(running);
}

void ThreadPool::runHelped(const std::function<void(unsigned)> &job) {
  start(job, true);
  running.fetch_sub(kOpen, std::memory_order_acq_rel);
  waitForNone(running);
}

/// Takes part as long as a job is open, which may be a later one than the one
/// this thread woke for. Others run in between, while nobody waits for it.
void ThreadPool::help(unsigned index) {
  uint32_t seen = running.load(std::memory_order_acquire);
  while (seen & kOpen) {
    if (!running.compare_exchange_weak(seen, seen + 1,
                                       std::memory_order_acq_rel,
                                       std::memory_order_acquire))
      continue;
    (*current)(index);
    running.fetch_sub(1, std::memory_order_release);
    std::this_thread::yield();
    seen = running.load(std::memory_order_acquire);
  }
}

void ThreadPool::work(unsigned index) {
  uint32_t seen = 0;
  while (true) {
    for (int spin = 0; epoch.load(std::memory_order_acquire) == seen; ++spin) {
      if (spin < kSpins)
        relax();
      else
        epoch.wait(seen, std::memory_order_acquire);
    }
    seen = epoch.load(std::memory_order_acquire);
    if (stopping)
      return;
    if (seen & 1) {
      help(index);
      continue;
    }
    (*current)(index);
    running.fetch_sub(1, std::memory_order_release);
  }
}
