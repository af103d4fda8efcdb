//===- StageExecutor.cpp - runs the launches of one stage -----------------===//
#include "isthmus/runtime/StageExecutor.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <sys/mman.h>

using namespace isthmus;
using namespace isthmus::rt;

/// What one entry of the page tables covers in huge pages.
static constexpr size_t kHugePage = 2 << 20;

HostMemory::HostMemory(size_t bytes) : length(bytes) {
  if (bytes == 0)
    return;
  // Room to start where a huge page can.
  const bool huge = bytes >= kHugePage;
  mappedBytes = bytes + (huge ? kHugePage : 0);
  mapped = mmap(nullptr, mappedBytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    mapped = nullptr;
    throw Error("no memory for {} bytes", bytes);
  }
  base = static_cast<std::byte *>(mapped);
  if (!huge)
    return;
  auto address = reinterpret_cast<uintptr_t>(base);
  base += (kHugePage - address % kHugePage) % kHugePage;
  // A wish: without it everything works, with more misses.
  madvise(base, length, MADV_HUGEPAGE);
}

HostMemory::~HostMemory() {
  if (mapped)
    munmap(mapped, mappedBytes);
}

HostMemory::HostMemory(HostMemory &&other) noexcept
    : base(std::exchange(other.base, nullptr)),
      mapped(std::exchange(other.mapped, nullptr)),
      length(std::exchange(other.length, 0)),
      mappedBytes(std::exchange(other.mappedBytes, 0)) {}

HostMemory &HostMemory::operator=(HostMemory &&other) noexcept {
  std::swap(base, other.base);
  std::swap(mapped, other.mapped);
  std::swap(length, other.length);
  std::swap(mappedBytes, other.mappedBytes);
  return *this;
}

//===----------------------------------------------------------------------===//
// Binding
//===----------------------------------------------------------------------===//

/// Pieces of a product start at an even panel, where its kernel takes several
/// panels at once.
static constexpr int64_t kPanelMultiple = 2;
/// Pieces that a thread's own run is taken in, so that others can help: more of
/// them where a tile is a small part of the run, and in large steps, where
/// waiting for one of four pieces cost a fifth of the product.
static constexpr int64_t kPieces = 4, kManyPieces = 16, kManyTiles = 64;

StageExecutor::StageExecutor(const Bundle &bundle, const KernelLibrary &kernels,
                             const bundle::Plan &plan, int stage,
                             const StepLimits &limits, uint64_t pages,
                             ThreadPool &pool)
    : pool(pool), barrier(pool.size()) {
  const bundle::Manifest &manifest = bundle.manifest();
  large.linked = linkStage(manifest, plan, stage, limits, Regime::Large);
  small.linked = linkStage(manifest, plan, stage, limits, Regime::Small);
  auto aligned = [](uint64_t bytes) { return (bytes + 127) / 128 * 128; };
  // Threads' memories are a line more apart than a power of two.
  privateStride = aligned(small.linked.privateBytes) + 128;
  scratchStride = aligned(large.linked.scratchBytes) + 128;
  arena = HostMemory(large.linked.arenaBytes);
  privateMemory = HostMemory(privateStride * pool.size());
  scratch = HostMemory(scratchStride * pool.size());
  // One memory for all states: huge pages are then rounded up once.
  std::map<uint32_t, uint64_t> offsets;
  uint64_t stateBytes = 0;
  for (auto [state, pageBytes] : large.linked.states) {
    offsets[state] = stateBytes;
    stateBytes += aligned(pageBytes * pagesInGroups(pages));
  }
  states = HostMemory(stateBytes);
  for (auto [state, offset] : offsets)
    stateBase[state] = states.data() + offset;
  bind(large, bundle, kernels);
  bind(small, bundle, kernels);
  size_t longest = 1;
  for (const Program *program : {&small, &large})
    for (size_t p = 0; p + 1 < program->phases.size(); ++p)
      longest = std::max(longest, program->phases[p + 1] - program->phases[p]);
  cursors.reset(new Cursor[longest * pool.size()]);
}

void StageExecutor::bind(Program &program, const Bundle &bundle,
                         const KernelLibrary &kernels) {
  const auto &launches = program.linked.launches;
  program.args.reserve(launches.size() * pool.size()); // addresses must stay
  for (size_t i = 0; i < launches.size(); ++i) {
    const LinkedLaunch &launch = launches[i];
    Bound bound{kernels.lookup(launch.launch->kernel()),
                nullptr,
                0,
                int64_t(launch.tiles),
                int64_t(launch.rowsPerTile),
                launch.perPartition,
                launch.replicate,
                launch.rows,
                {}};
    Args args{};
    args.rowCount =
        launch.rows == bundle::TOKENS ? &step.tokens : &step.outputs;
    args.step = &step;
    for (const LinkedOperand &operand : launch.operands)
      if (operand.kind == LinkedOperand::Kind::Private)
        bound.argsStride = 1;
    for (unsigned thread = 0; thread < (bound.argsStride ? pool.size() : 1);
         ++thread) {
      size_t index = 0;
      for (const LinkedOperand &operand : launch.operands) {
        void *address = nullptr;
        switch (operand.kind) {
        case LinkedOperand::Kind::Arena:
          address = arena.data() + operand.value;
          break;
        case LinkedOperand::Kind::Private:
          address =
              privateMemory.data() + privateStride * thread + operand.value;
          break;
        case LinkedOperand::Kind::Weight: {
          auto weight = bundle.weight(uint32_t(operand.value));
          // Kernels only read weights; the ABI has one kind of pointer.
          address = const_cast<std::byte *>(weight.data());
          // What all rows read, not one row of a table.
          if (launch.rowsPerTile > 1 && thread == 0)
            bound.weights.push_back(weight);
          break;
        }
        case LinkedOperand::Kind::State:
          address = stateBase.at(uint32_t(operand.value));
          break;
        }
        args.operands[index++] = address;
      }
      program.args.push_back(args);
    }
    bound.args =
        &program.args.back() - (bound.argsStride ? pool.size() - 1 : 0);
    if (i == 0 || launch.wait)
      program.phases.push_back(i);
    program.launches.push_back(bound);
  }
  program.phases.push_back(launches.size());
}

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

static int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

namespace {
/// Fetches the weights of coming launches into a thread's cache, a few lines at
/// a call: what memory can do while the thread has nothing else to do.
class Prefetcher {
public:
  template <typename NextRange> explicit Prefetcher(NextRange next) {
    // The next one or two launches are enough to fill the budget.
    for (size_t left = kBudget; left > 0 && count < kRanges;) {
      std::span<const std::byte> range = next();
      if (range.empty())
        break;
      ranges[count] = range.first(std::min(left, range.size()));
      left -= ranges[count++].size();
    }
  }

  void operator()() {
    if (current == count)
      return;
    const std::byte *data = ranges[current].data();
    const size_t end = std::min(offset + kStep, ranges[current].size());
    for (; offset < end; offset += 64)
      __builtin_prefetch(data + offset, 0, 2);
    if (offset >= ranges[current].size()) {
      offset = 0;
      ++current;
    }
  }

private:
  static constexpr size_t kBudget = 192 << 10, kRanges = 4, kStep = 512;
  std::span<const std::byte> ranges[kRanges];
  size_t count = 0, current = 0, offset = 0;
};
} // namespace

int64_t StageExecutor::tilesOf(const Bound &launch) const {
  int64_t rows = launch.rows == bundle::TOKENS ? step.tokens : step.outputs;
  if (rows == 0)
    return 0;
  rows = (rows + launch.rowsPerTile - 1) / launch.rowsPerTile;
  return launch.tiles * rows * (launch.perPartition ? step.partitions : 1);
}

int64_t StageExecutor::runStart(const Bound &launch, int64_t total,
                                unsigned thread) const {
  int64_t multiple = launch.weights.empty() ? 1 : kPanelMultiple;
  int64_t groups = (total + multiple - 1) / multiple;
  return std::min(total, groups * thread / pool.size() * multiple);
}

void StageExecutor::openPhase(const Program &program, size_t phase) {
  const unsigned threads = pool.size();
  for (size_t i = program.phases[phase]; i < program.phases[phase + 1]; ++i) {
    const Bound &launch = program.launches[i];
    if (launch.replicate)
      continue;
    const int64_t total = tilesOf(launch);
    Cursor *slot = &cursors[(i - program.phases[phase]) * threads];
    for (unsigned t = 0; t < threads; ++t)
      slot[t].next.store(runStart(launch, total, t), std::memory_order_relaxed);
  }
}

void StageExecutor::runTiles(const Program &program, size_t index, size_t slot,
                             unsigned thread) {
  const Bound &launch = program.launches[index];
  const Args *args = launch.args + launch.argsStride * thread;
  void *own = scratch.data() + scratchStride * thread;
  const int64_t total = tilesOf(launch);
  Span *span =
      recorded.empty() ? nullptr : &recorded[index * pool.size() + thread];
  if (span)
    *span = {now(), 0};
  bool worked = false;
  if (launch.replicate) {
    launch.kernel(args, 0, total, own);
    worked = total > 0;
  } else {
    const unsigned threads = pool.size();
    const int64_t multiple = launch.weights.empty() ? 1 : kPanelMultiple;
    const int64_t share = (total + threads - 1) / threads;
    const int64_t pieces =
        &program == &large || share >= kManyTiles ? kManyPieces : kPieces;
    const int64_t piece =
        threads == 1
            ? total
            : std::max<int64_t>(1, share / (pieces * multiple)) * multiple;
    for (unsigned i = 0; i < threads && total > 0; ++i) {
      // The own run first, then what is left of the others'.
      unsigned owner = thread + i < threads ? thread + i : thread + i - threads;
      std::atomic<int64_t> &next = cursors[slot * threads + owner].next;
      const int64_t end = runStart(launch, total, owner + 1);
      for (int64_t first = next.load(std::memory_order_relaxed); first < end;) {
        first = next.fetch_add(piece, std::memory_order_relaxed);
        if (first >= end)
          break;
        launch.kernel(args, first, std::min(first + piece, end), own);
        worked = true;
      }
    }
  }
  if (span && worked)
    span->end = now();
}

void StageExecutor::runPhase(const Program &program, size_t phase,
                             unsigned thread) {
  const size_t first = program.phases[phase];
  for (size_t i = first; i < program.phases[phase + 1]; ++i)
    runTiles(program, i, i - first, thread);
}

void StageExecutor::run(const StepRows &rows) {
  step = rows;
  const bool isSmall = uint64_t(rows.tokens) <= kSmallStepRows &&
                       uint64_t(rows.outputs) <= kSmallStepRows;
  const Program &program = isSmall ? small : large;
  last = &program;
  openPhase(program, 0);
  pool.run([&](unsigned thread) {
    const size_t phases = program.phases.size() - 1;
    for (size_t phase = 0; phase < phases; ++phase) {
      if (phase > 0 && isSmall) {
        size_t ahead = program.phases[phase], weight = 0;
        Prefetcher prefetch([&]() -> std::span<const std::byte> {
          for (; ahead < program.launches.size(); ++ahead, weight = 0) {
            const auto &weights = program.launches[ahead].weights;
            if (weight == weights.size())
              continue;
            size_t share = weights[weight].size() / pool.size();
            return weights[weight++].subspan(share * thread, share);
          }
          return {};
        });
        barrier.wait([&] { openPhase(program, phase); }, prefetch);
      } else if (phase > 0) {
        barrier.wait([&] { openPhase(program, phase); }, [] {});
      }
      runPhase(program, phase, thread);
    }
  });
}

void StageExecutor::record() {
  recorded.resize(std::max(small.launches.size(), large.launches.size()) *
                  pool.size());
}
