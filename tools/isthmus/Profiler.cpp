//===- Profiler.cpp - times kernels against the machine -------------------===//
#include "Profiler.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace isthmus;
using namespace isthmus::cli;
using nlohmann::json;

Profiler::Profiler(rt::LocalRunner &runner)
    : limits(runner.kernels(), runner.threads()), runner(runner) {
  for (const auto &executor : runner.executors())
    executor->record();
}

void Profiler::probe(const rt::Bundle &bundle) {
  for (const auto &executor : runner.executors()) {
    const std::byte *first = nullptr, *end = nullptr;
    for (uint32_t weight : executor->stage().weights) {
      auto bytes = bundle.weight(weight);
      if (!first || bytes.data() < first)
        first = bytes.data();
      end = std::max(end, bytes.data() + bytes.size());
    }
    for (int pass = 0; pass < 3; ++pass)
      limits.probeRead({first, end});
  }
  limits.probeArithmetic();
}

void Profiler::add(rt::Profile &profile) {
  for (const auto &executor : runner.executors())
    profile.add(*executor, runner.lastStep(), limits);
}

std::string Profiler::trace() const {
  std::string events = "{\"traceEvents\":[";
  int process = 0;
  for (const auto &executor : runner.executors())
    rt::appendTrace(*executor, process++, events);
  return events + "]}\n";
}

json cli::toJson(const rt::Profile &profile) {
  json kernels = json::array();
  for (const auto &[name, entry] : profile.entries())
    kernels.push_back({{"kernel", name},
                       {"launches", entry.launches},
                       {"seconds", entry.seconds},
                       {"bytes", entry.cost.bytes},
                       {"ops", entry.cost.ops},
                       {"roofline", entry.limitSeconds / entry.seconds}});
  return {{"steps", profile.steps()},
          {"seconds", profile.seconds()},
          {"roofline", profile.limitSeconds() / profile.seconds()},
          {"kernels", kernels}};
}

void cli::printProfile(const std::string &title, const rt::Profile &profile) {
  auto steps = double(profile.steps());
  fmt::print("{}: {:.0f} us a step, {:.0f} % of the roofline\n", title,
             profile.seconds() / steps * 1e6,
             100 * profile.limitSeconds() / profile.seconds());
  fmt::print("  {:<44} {:>5} {:>9} {:>6} {:>8} {:>8} {:>9}\n", "kernel",
             "calls", "us/step", "share", "GB/s", "Gop/s", "roofline");
  std::vector<std::pair<std::string, rt::Profile::Entry>> sorted(
      profile.entries().begin(), profile.entries().end());
  std::sort(sorted.begin(), sorted.end(), [](const auto &a, const auto &b) {
    return a.second.seconds > b.second.seconds;
  });
  double inKernels = 0;
  for (const auto &[name, e] : sorted) {
    inKernels += e.seconds;
    fmt::print("  {:<44} {:>5.0f} {:>9.1f} {:>4.1f} % {:>8.1f} {:>8.1f} "
               "{:>7.0f} %\n",
               name, double(e.launches) / steps, e.seconds / steps * 1e6,
               100 * e.seconds / profile.seconds(),
               double(e.cost.bytes) / e.seconds * 1e-9,
               double(e.cost.ops) / e.seconds * 1e-9,
               100 * e.limitSeconds / e.seconds);
  }
  // Launches that overlap count twice: the rest can be negative.
  double rest = profile.seconds() - inKernels;
  fmt::print("  {:<44} {:>5} {:>9.1f} {:>4.1f} %\n", "(barriers and gaps)", "",
             rest / steps * 1e6, 100 * rest / profile.seconds());
}

void cli::printLimits(const rt::MachineLimits &limits) {
  fmt::print("limits: {:.1f} GB/s, {:.0f} Gop/s f32, {:.0f} bf16, {:.0f} "
             "int8",
             limits.bytesPerSecond() * 1e-9,
             limits.opsPerSecond(bundle::Cost::F32) * 1e-9,
             limits.opsPerSecond(bundle::Cost::BF16) * 1e-9,
             limits.opsPerSecond(bundle::Cost::INT8) * 1e-9);
  if (limits.measures(bundle::Cost::BF16X1))
    fmt::print(", {:.0f} bf16 in a matrix unit",
               limits.opsPerSecond(bundle::Cost::BF16X1) * 1e-9);
  fmt::print("\n");
}
