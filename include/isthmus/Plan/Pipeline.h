//===- Pipeline.h - splits a chain of layers over devices -------*- C++ -*-===//
//
// The planner, free of MLIR and of the runtime, so that the compiler and a
// running coordinator can both call it. What is here is the simple exact case:
// a pipeline of contiguous runs in the order of the devices, for one token at a
// time.
//
//===----------------------------------------------------------------------===//
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace isthmus::plan {

struct Device {
  std::string name;
  uint64_t memoryBytes; ///< budget for weights, KV cache and activations
  double bandwidth;     ///< bytes a second read from memory
  double ops;           ///< operations a second
};

struct Link {
  size_t a, b;      ///< indices of devices
  double latency;   ///< seconds, one way
  double bandwidth; ///< bytes a second
};

struct Layer {
  uint64_t weightBytes;
  uint64_t stateBytes;  ///< KV cache for the planned context
  double opsPerToken;   ///< two for each multiply-add
  uint64_t outputBytes; ///< what the next layer reads, for one token
  uint64_t workBytes;   ///< activations while it runs; layers reuse the memory
  /// Weights it shares with other layers (a tied embedding) are listed by
  /// identity, so that a device that runs both counts them once.
  std::vector<size_t> weightIds;
};

struct Problem {
  std::vector<Device> devices;
  std::vector<Link> links;
  std::vector<Layer> layers;
  std::vector<uint64_t> weightSizes; ///< bytes of each weight id
};

struct Run {
  size_t device, first, count;
};

struct Result {
  std::vector<Run> runs;        ///< in order; empty when infeasible
  double secondsPerToken = 0;   ///< estimated, one token alone
  std::vector<uint64_t> memory; ///< bytes each run needs
  std::string reason;           ///< why there is no plan
};

/// Bytes that layers [first, first + count) need on one device.
uint64_t memoryOf(const Problem &problem, size_t first, size_t count);

/// Estimated seconds for one token of layers [first, first + count): the larger
/// of reading the weights and doing the arithmetic.
double secondsOf(const Problem &problem, const Device &device, size_t first,
                 size_t count);

/// Finds the split of least estimated time a token by dynamic programming over
/// (device, layers done): exact for this cost model, O(devices^2 layers^2).
Result splitPipeline(const Problem &problem);

} // namespace isthmus::plan
