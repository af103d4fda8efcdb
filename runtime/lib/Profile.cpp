//===- Profile.cpp - where the time of a step goes ------------------------===//
#include "isthmus/runtime/Profile.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

using namespace isthmus;
using namespace isthmus::rt;

LaunchCost isthmus::rt::costOf(const bundle::Launch &launch,
                               const StepRows &step) {
  const bundle::Cost &cost = launch.cost();
  auto rows =
      uint64_t(launch.rows() == bundle::TOKENS ? step.tokens : step.outputs);
  if (rows == 0)
    return {};
  LaunchCost result{cost.bytes() + cost.bytes_per_row() * rows,
                    cost.ops_per_row() * rows};
  if (cost.bytes_per_position() == 0 && cost.ops_per_position() == 0)
    return result;
  // A sequence's cache is read once for all its rows.
  std::map<int32_t, uint64_t> cached;
  for (int64_t row = 0; row < step.tokens; ++row) {
    auto positions = uint64_t(step.positions[row]) + 1;
    uint64_t &longest = cached[step.sequence[row]];
    longest = std::max(longest, positions);
    const auto seen = cost.bidirectional()
                          ? uint64_t(step.lengths[step.sequence[row]])
                          : positions;
    result.ops += cost.ops_per_position() * seen;
  }
  for (auto [sequence, positions] : cached)
    result.bytes += cost.bytes_per_position() * positions;
  return result;
}

//===----------------------------------------------------------------------===//
// Limits
//===----------------------------------------------------------------------===//

MachineLimits::MachineLimits(const KernelLibrary &kernels, ThreadPool &pool)
    : readProbes{
          {{kernels.lookup(kProbeRead)}, {kernels.lookup(kProbeReadAhead)}}},
      arithmetic{{bundle::Cost::F32, {kernels.lookup(kProbeF32)}},
                 {bundle::Cost::BF16, {kernels.lookup(kProbeBF16)}},
                 {bundle::Cost::INT8, {kernels.lookup(kProbeInt8)}}},
      pool(pool), scratch(size_t(kProbeScratchBytes) * pool.size()) {
  for (auto [kind, name] : {std::pair(bundle::Cost::BF16X1, kProbeBF16x1),
                            std::pair(bundle::Cost::BF16X6, kProbeBF16x6)})
    if (Kernel probe = kernels.find(name))
      arithmetic[kind] = {probe};
}

double MachineLimits::runTiles(Kernel kernel, const std::byte *operand,
                               int64_t tiles) {
  Args args{};
  // Kernels only read it; the ABI has one kind of pointer.
  args.operands[0] = const_cast<std::byte *>(operand);
  const int64_t grab = std::max<int64_t>(1, tiles / (int64_t(pool.size()) * 6));
  std::atomic<int64_t> next = 0;
  auto start = std::chrono::steady_clock::now();
  pool.run([&](unsigned thread) {
    void *own = scratch.data() + size_t(kProbeScratchBytes) * thread;
    for (int64_t first; (first = next.fetch_add(grab)) < tiles;)
      kernel(&args, first, std::min(first + grab, tiles), own);
  });
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

void MachineLimits::probeRead(std::span<const std::byte> data) {
  auto tiles = int64_t(data.size()) / kProbeReadBytes;
  if (tiles == 0)
    return;
  readRate = 0;
  for (ReadProbe &probe : readProbes) {
    const double rate = double(tiles * kProbeReadBytes) /
                        runTiles(probe.kernel, data.data(), tiles);
    probe.rates.insert(std::ranges::lower_bound(probe.rates, rate), rate);
    readRate = std::max(readRate, probe.rates[probe.rates.size() / 2]);
  }
}

void MachineLimits::probeArithmetic() {
  constexpr double kOpsOfTile = 2.0 * kProbeMultiplyAdds;
  constexpr double kLongEnough = 300e-6; // to wake threads is nothing beside it
  for (auto &[kind, probe] : arithmetic) {
    int64_t tiles = 64;
    double seconds = runTiles(probe.kernel, nullptr, tiles);
    while (seconds < kLongEnough)
      seconds = runTiles(probe.kernel, nullptr, tiles *= 2);
    probe.rate = std::max(probe.rate, kOpsOfTile * double(tiles) / seconds);
  }
}

double MachineLimits::secondsFor(const LaunchCost &cost,
                                 bundle::Cost::Arithmetic kind) const {
  return std::max(double(cost.bytes) / bytesPerSecond(),
                  double(cost.ops) / opsPerSecond(kind));
}

//===----------------------------------------------------------------------===//
// Profiles
//===----------------------------------------------------------------------===//

void Profile::add(const StageExecutor &executor, const StepRows &step,
                  const MachineLimits &limits) {
  const LinkedStage &stage = executor.lastRun();
  int64_t begin = INT64_MAX, end = 0;
  for (size_t i = 0; i < stage.launches.size(); ++i) {
    int64_t first = INT64_MAX, last = 0;
    for (const StageExecutor::Span &span : executor.spans(i)) {
      if (span.end == 0)
        continue; // this thread got no tile
      first = std::min(first, span.begin);
      last = std::max(last, span.end);
    }
    if (last == 0)
      continue;
    begin = std::min(begin, first);
    end = std::max(end, last);
    const bundle::Launch &launch = *stage.launches[i].launch;
    Entry &entry = byKernel[launch.kernel()];
    LaunchCost cost = costOf(launch, step);
    entry.launches++;
    entry.seconds += double(last - first) * 1e-9;
    entry.cost.bytes += cost.bytes;
    entry.cost.ops += cost.ops;
    entry.arithmetic = launch.cost().arithmetic();
    entry.limitSeconds += limits.secondsFor(cost, entry.arithmetic);
  }
  wall += double(end - begin) * 1e-9;
  ++count;
}

double Profile::limitSeconds() const {
  double sum = 0;
  for (const auto &[kernel, entry] : byKernel)
    sum += entry.limitSeconds;
  return sum;
}

void isthmus::rt::appendTrace(const StageExecutor &executor, int process,
                              std::string &json) {
  const LinkedStage &stage = executor.lastRun();
  for (size_t i = 0; i < stage.launches.size(); ++i) {
    unsigned thread = 0;
    for (const StageExecutor::Span &span : executor.spans(i)) {
      if (span.end != 0)
        fmt::format_to(std::back_inserter(json),
                       "{}{{\"name\":\"{}\",\"ph\":\"X\",\"pid\":{},\"tid\":{},"
                       "\"ts\":{:.3f},"
                       "\"dur\":{:.3f},\"args\":{{\"call\":{}}}}}",
                       json.ends_with('[') ? "" : ",\n",
                       stage.launches[i].launch->kernel(), process, thread,
                       double(span.begin) * 1e-3,
                       double(span.end - span.begin) * 1e-3,
                       stage.launches[i].call);
      ++thread;
    }
  }
}
