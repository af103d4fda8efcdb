//===- Profiler.h - times kernels against the machine -----------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Profile.h"
#include "isthmus/runtime/StepRunner.h"

#include <nlohmann/json_fwd.hpp>

namespace isthmus::cli {

/// Profiles steps, with the limits of the machine measured between them, so
/// that both see the same neighbours.
class Profiler {
public:
  /// `runner` records its steps from now on.
  explicit Profiler(rt::LocalRunner &runner);

  rt::MachineLimits limits;

  /// Reads the weights from first to last, which is what a step of one row does
  /// and finds in the caches what that finds.
  void probe(const rt::Bundle &bundle);

  /// Adds the last step.
  void add(rt::Profile &profile);

  /// The last step for ui.perfetto.dev.
  std::string trace() const;

private:
  rt::LocalRunner &runner;
};

nlohmann::json toJson(const rt::Profile &profile);
void printProfile(const std::string &title, const rt::Profile &profile);
void printLimits(const rt::MachineLimits &limits);

} // namespace isthmus::cli
