//===- Pipeline.cpp - splits a chain of layers over devices ---------------===//
#include "isthmus/Plan/Pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

using namespace isthmus::plan;

uint64_t isthmus::plan::memoryOf(const Problem &problem, size_t first,
                                 size_t count) {
  std::set<size_t> weights;
  uint64_t bytes = 0, work = 0;
  for (size_t i = first; i < first + count; ++i) {
    bytes += problem.layers[i].stateBytes;
    work = std::max(work, problem.layers[i].workBytes);
    for (size_t id : problem.layers[i].weightIds)
      if (weights.insert(id).second)
        bytes += problem.weightSizes[id];
  }
  return bytes + work;
}

double isthmus::plan::secondsOf(const Problem &problem, const Device &device,
                                size_t first, size_t count) {
  double seconds = 0;
  for (size_t i = first; i < first + count; ++i) {
    const Layer &layer = problem.layers[i];
    seconds += std::max(double(layer.weightBytes) / device.bandwidth,
                        layer.opsPerToken / device.ops);
  }
  return seconds;
}

namespace {
constexpr double kNever = std::numeric_limits<double>::infinity();

double transferSeconds(const Problem &problem, size_t from, size_t to,
                       uint64_t bytes) {
  for (const Link &link : problem.links)
    if ((link.a == from && link.b == to) || (link.a == to && link.b == from))
      return link.latency + double(bytes) / link.bandwidth;
  return kNever;
}

std::string explain(const Problem &problem) {
  uint64_t all = memoryOf(problem, 0, problem.layers.size());
  uint64_t budget = 0;
  const Device *largest = nullptr;
  for (const Device &device : problem.devices) {
    budget += device.memoryBytes;
    if (!largest || device.memoryBytes > largest->memoryBytes)
      largest = &device;
  }
  constexpr double kMB = 1e6;
  for (size_t i = 0; i < problem.layers.size(); ++i) {
    uint64_t need = memoryOf(problem, i, 1);
    if (largest && need > largest->memoryBytes)
      return fmt::format(
          "block {} alone needs {:.1f} MB, and the largest device, '{}', has a "
          "budget of {:.1f} MB: {:.1f} MB are missing",
          i, double(need) / kMB, largest->name,
          double(largest->memoryBytes) / kMB,
          double(need - largest->memoryBytes) / kMB);
  }
  std::string budgets;
  for (const Device &device : problem.devices)
    budgets += fmt::format("{}'{}' {:.1f} MB", budgets.empty() ? "" : ", ",
                           device.name, double(device.memoryBytes) / kMB);
  if (all > budget)
    return fmt::format("the model needs {:.1f} MB and the memory budgets ({}) "
                       "add up to {:.1f} MB: {:.1f} MB are missing",
                       double(all) / kMB, budgets, double(budget) / kMB,
                       double(all - budget) / kMB);
  return fmt::format(
      "no contiguous split keeps within the memory budgets ({}); the model "
      "needs {:.1f} MB, and linked devices take runs of whole blocks in the "
      "order of the topology",
      budgets, double(all) / kMB);
}
} // namespace

Result isthmus::plan::splitPipeline(const Problem &problem) {
  const size_t devices = problem.devices.size(), layers = problem.layers.size();
  struct Cell {
    double seconds = kNever;
    size_t previousDevice = 0, first = 0;
  };
  // best[d][n]: the first n layers are placed and device d ran the last of
  // them.
  std::vector<std::vector<Cell>> best(devices, std::vector<Cell>(layers + 1));
  for (size_t d = 0; d < devices; ++d) {
    for (size_t first = 0; first < layers; ++first) {
      for (size_t last = first + 1; last <= layers; ++last) {
        if (memoryOf(problem, first, last - first) >
            problem.devices[d].memoryBytes)
          break;
        double own =
            secondsOf(problem, problem.devices[d], first, last - first);
        if (first == 0 && own < best[d][last].seconds)
          best[d][last] = {own, devices, 0};
        for (size_t p = 0; first > 0 && p < d; ++p) {
          double total = best[p][first].seconds + own +
                         transferSeconds(problem, p, d,
                                         problem.layers[first - 1].outputBytes);
          if (total < best[d][last].seconds)
            best[d][last] = {total, p, first};
        }
      }
    }
  }
  size_t device = devices;
  double seconds = kNever;
  for (size_t d = 0; d < devices; ++d)
    if (best[d][layers].seconds < seconds) {
      seconds = best[d][layers].seconds;
      device = d;
    }
  Result result;
  if (device == devices) {
    result.reason = explain(problem);
    return result;
  }
  result.secondsPerToken = seconds;
  for (size_t done = layers; device != devices;) {
    const Cell &cell = best[device][done];
    result.runs.push_back({device, cell.first, done - cell.first});
    done = cell.first;
    device = cell.previousDevice;
  }
  std::reverse(result.runs.begin(), result.runs.end());
  for (const Run &run : result.runs)
    result.memory.push_back(memoryOf(problem, run.first, run.count));
  return result;
}
