//===- Topology.h - reads topology files ------------------------*- C++ -*-===//
#pragma once

#include "isthmus/Plan/Pipeline.h"
#include "isthmus/Target/TargetDescription.h"

#include <filesystem>
#include <string>
#include <vector>

namespace isthmus {

/// What a topology file says. `targets` stands beside `devices`: the names of
/// targets, separated by commas, of which the device runs the first it can.
struct Topology {
  std::vector<plan::Device> devices;
  std::vector<std::string> targets;
  std::vector<plan::Link> links;
};

/// Reads a YAML topology (docs/topology.md). Quantities carry units: "64 MB",
/// "12.5 MB/s", "2 ms", "40 Gop/s". Throws rt::Error with file and line.
Topology readTopology(const std::filesystem::path &path);

/// Checks a list of targets, in which "host" stands for this machine's, and
/// returns it with the preferred ones first. Throws rt::Error that lists all.
std::string parseTargets(const std::string &text);

/// The targets that a bundle for the topology holds, the preferred ones first.
std::vector<const TargetDescription *> targetsOf(const Topology &topology);

/// This machine as a topology of one device.
Topology hostTopology();

/// Parses a quantity with a unit ("B", "B/s", "s", "op/s" and decimal or binary
/// prefixes); throws rt::Error.
double parseQuantity(const std::string &text, const std::string &unit);

} // namespace isthmus
