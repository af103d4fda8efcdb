//===- Profile.h - where the time of a step goes ----------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/StageExecutor.h"

#include <array>
#include <chrono>
#include <map>
#include <string>

namespace isthmus::rt {

/// What a launch must read and compute at least for the rows of a step.
struct LaunchCost {
  uint64_t bytes = 0, ops = 0;
};
LaunchCost costOf(const bundle::Launch &launch, const StepRows &step);

/// What this machine can do, measured by the probes of a kernel library with
/// all threads of a pool.
class MachineLimits {
public:
  MachineLimits(const KernelLibrary &kernels, ThreadPool &pool);

  /// Reads all of `data` once with each probe. The limit is that of the faster
  /// one, the median of its reads: best cases of a shared machine are as little
  /// typical as worst ones.
  void probeRead(std::span<const std::byte> data);
  /// Measures the arithmetic rates; keeps the best seen.
  void probeArithmetic();

  double bytesPerSecond() const { return readRate; }
  /// A kind that this version does not know counts as f32.
  double opsPerSecond(bundle::Cost::Arithmetic kind) const {
    auto it = arithmetic.find(kind);
    return (it != arithmetic.end() ? it : arithmetic.find(bundle::Cost::F32))
        ->second.rate;
  }
  /// Whether the kernels have a probe of it.
  bool measures(bundle::Cost::Arithmetic kind) const {
    return arithmetic.contains(kind);
  }
  /// Seconds that `cost` takes at the limits.
  double secondsFor(const LaunchCost &cost,
                    bundle::Cost::Arithmetic kind) const;

private:
  double runTiles(Kernel kernel, const std::byte *operand, int64_t tiles);

  struct Probe {
    Kernel kernel;
    double rate = 0; ///< operations a second
  };
  struct ReadProbe {
    Kernel kernel;
    std::vector<double> rates = {}; ///< bytes a second, ascending
  };
  std::array<ReadProbe, 2> readProbes;
  std::map<bundle::Cost::Arithmetic, Probe> arithmetic;
  ThreadPool &pool;
  HostMemory scratch;
  double readRate = 0;
};

/// Sums the spans of many steps, kernel by kernel.
class Profile {
public:
  struct Entry {
    uint64_t launches = 0;
    double seconds = 0; ///< from the first thread's start to the last one's end
    LaunchCost cost;
    double limitSeconds = 0; ///< what the cost takes at the machine's limits
    bundle::Cost::Arithmetic arithmetic = bundle::Cost::F32;
  };

  /// Adds the step that `executor` ran last (it must record).
  void add(const StageExecutor &executor, const StepRows &step,
           const MachineLimits &limits);

  const std::map<std::string, Entry> &entries() const { return byKernel; }
  /// Wall time of the steps; what kernels leave of it is barriers and gaps.
  double seconds() const { return wall; }
  double limitSeconds() const;
  uint64_t steps() const { return count; }

private:
  std::map<std::string, Entry> byKernel;
  double wall = 0;
  uint64_t count = 0;
};

/// Appends the spans of the step that `executor` ran last as events of the
/// Chrome trace format, which Perfetto reads. `process` numbers the stage.
void appendTrace(const StageExecutor &executor, int process, std::string &json);

} // namespace isthmus::rt
