//===- StageExecutor.cpp - runs the launches of one stage -----------------===//
#include "isthmus/runtime/StageExecutor.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <sys/mman.h>

using namespace isthmus::rt;

HostMemory::HostMemory(size_t bytes) : length(bytes) {
  if (bytes == 0)
    return;
  void *mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED)
    throw Error("no memory for {} bytes", bytes);
  base = static_cast<std::byte *>(mapped);
}

HostMemory::~HostMemory() {
  if (base)
    munmap(base, length);
}

HostMemory::HostMemory(HostMemory &&other) noexcept
    : base(std::exchange(other.base, nullptr)),
      length(std::exchange(other.length, 0)) {}

HostMemory &HostMemory::operator=(HostMemory &&other) noexcept {
  std::swap(base, other.base);
  std::swap(length, other.length);
  return *this;
}

StageExecutor::StageExecutor(const Bundle &bundle, const KernelLibrary &kernels,
                             LinkedStage stage, uint64_t pages,
                             ThreadPool &pool)
    : linked(std::move(stage)), pool(pool), arena(linked.arenaBytes),
      scratch((linked.scratchBytes + 63) / 64 * 64 * pool.size()),
      counters(new Counter[linked.launches.size()]), barrier(pool.size()) {
  std::map<uint64_t, std::byte *> stateBase;
  for (auto [state, pageBytes] : linked.states) {
    states.emplace_back(pageBytes * pages);
    stateBase[state] = states.back().data();
  }
  for (const LinkedLaunch &launch : linked.launches) {
    Bound bound{kernels.lookup(launch.launch->kernel()),
                {},
                launch.tiles,
                launch.perRow,
                launch.wait,
                launch.rows};
    size_t i = 0;
    for (const LinkedOperand &operand : launch.operands) {
      void *address = nullptr;
      switch (operand.kind) {
      case LinkedOperand::Kind::Arena:
        address = arena.data() + operand.value;
        break;
      case LinkedOperand::Kind::Weight:
        // Kernels only read weights; the ABI has one kind of pointer.
        address = const_cast<std::byte *>(
            bundle.weight(uint32_t(operand.value)).data());
        break;
      case LinkedOperand::Kind::State:
        address = stateBase.at(operand.value);
        break;
      }
      bound.args.operands[i++] = address;
    }
    launches.push_back(bound);
  }
}

static int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void StageExecutor::run(const StepRows &step) {
  for (size_t i = 0; i < launches.size(); ++i) {
    launches[i].args.step = &step;
    launches[i].args.rowCount =
        launches[i].rows == bundle::TOKENS ? step.tokens : step.outputs;
    counters[i].next.store(0, std::memory_order_relaxed);
  }
  const size_t scratchStride = (linked.scratchBytes + 63) / 64 * 64;
  pool.run([&](unsigned thread) {
    void *own = scratch.data() + scratchStride * thread;
    for (size_t i = 0; i < launches.size(); ++i) {
      const Bound &launch = launches[i];
      if (launch.wait && i > 0)
        barrier.wait();
      if (launch.args.rowCount == 0)
        continue;
      auto total =
          int64_t(launch.tiles) * (launch.perRow ? launch.args.rowCount : 1);
      // Several grabs a thread even out unequal or noisy cores; multiples of 4
      // keep one-row products on their widest path.
      int64_t grab = std::max<int64_t>(1, total / (int64_t(pool.size()) * 6));
      if (!launch.perRow)
        grab = (grab + 3) / 4 * 4;
      if (pool.size() == 1)
        grab = total;
      Span *span =
          recorded.empty() ? nullptr : &recorded[i * pool.size() + thread];
      if (span)
        *span = {now(), 0};
      bool worked = false;
      for (int64_t first; (first = counters[i].next.fetch_add(
                               grab, std::memory_order_relaxed)) < total;) {
        launch.kernel(&launch.args, first, std::min(first + grab, total), own);
        worked = true;
      }
      if (span && worked)
        span->end = now();
    }
  });
}
