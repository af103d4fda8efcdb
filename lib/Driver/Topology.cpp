//===- Topology.cpp - reads topology files --------------------------------===//
#include "isthmus/Driver/Topology.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <sstream>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

using namespace isthmus;
using rt::Error;

double isthmus::parseQuantity(const std::string &text,
                              const std::string &unit) {
  double value = 0;
  auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  std::string suffix(static_cast<const char *>(end), text.data() + text.size());
  suffix.erase(0, suffix.find_first_not_of(' '));
  static const std::pair<const char *, double> prefixes[] = {
      {"", 1},      {"m", 1e-3},       {"u", 1e-6},         {"n", 1e-9},
      {"k", 1e3},   {"M", 1e6},        {"G", 1e9},          {"T", 1e12},
      {"Ki", 1024}, {"Mi", 1048576.0}, {"Gi", 1073741824.0}};
  if (error == std::errc() && value > 0 && std::isfinite(value))
    for (auto [prefix, factor] : prefixes)
      if (suffix == prefix + unit)
        return value * factor;
  throw Error("'{}' is not a quantity in {} (like \"64 M{}\")", text, unit,
              unit);
}

/// The names in a list of targets.
static std::set<std::string> namesIn(const std::string &list) {
  std::set<std::string> result;
  std::istringstream names(list);
  for (std::string name; std::getline(names, name, ',');) {
    name.erase(0, name.find_first_not_of(' '));
    name.erase(name.find_last_not_of(' ') + 1);
    result.insert(name == "host" ? hostTarget().name : name);
  }
  return result;
}

std::string isthmus::parseTargets(const std::string &text) {
  std::set<std::string> chosen = namesIn(text);
  std::string known = "host", result;
  for (const TargetDescription &candidate : allTargets()) {
    known += ", " + candidate.name;
    if (chosen.erase(candidate.name))
      result += (result.empty() ? "" : ",") + candidate.name;
  }
  if (!chosen.empty() || result.empty())
    throw Error("unknown target '{}'; known: {}",
                chosen.empty() ? text : *chosen.begin(), known);
  return result;
}

std::vector<const TargetDescription *>
isthmus::targetsOf(const Topology &topology) {
  std::set<std::string> names;
  for (const std::string &ofDevice : topology.targets)
    names.merge(namesIn(ofDevice));
  std::vector<const TargetDescription *> result;
  for (const TargetDescription &candidate : allTargets())
    if (names.contains(candidate.name))
      result.push_back(&candidate);
  return result;
}

namespace {
class TopologyReader {
public:
  explicit TopologyReader(const std::filesystem::path &path)
      : where(path.string()) {}

  Topology read() {
    YAML::Node root;
    try {
      root = YAML::LoadFile(where);
    } catch (const YAML::Exception &error) {
      throw Error("{}: {}", where, error.what());
    }
    expectKeys(root, {"devices", "links"});
    for (const YAML::Node &device : list(root, "devices"))
      readDevice(device);
    if (root["links"])
      for (const YAML::Node &link : list(root, "links"))
        readLink(link);
    return std::move(result);
  }

private:
  std::string where;
  Topology result;

  [[noreturn]] void fail(const YAML::Node &node, const std::string &message) {
    throw Error("{}:{}: {}", where, node.Mark().line + 1, message);
  }

  YAML::Node list(const YAML::Node &node, const std::string &key) {
    YAML::Node value = node[key];
    if (!value || !value.IsSequence() || value.size() == 0)
      fail(node, "'" + key + "' must be a list");
    return value;
  }

  void expectKeys(const YAML::Node &node, const std::set<std::string> &keys) {
    if (!node.IsMap())
      fail(node, "expected keys and values");
    for (const auto &entry : node)
      if (!keys.contains(entry.first.as<std::string>()))
        fail(entry.first,
             "unknown key '" + entry.first.as<std::string>() + "'");
  }

  std::string text(const YAML::Node &node, const std::string &key) {
    if (!node[key] || !node[key].IsScalar())
      fail(node, "'" + key + "' is missing");
    return node[key].as<std::string>();
  }

  double quantity(const YAML::Node &node, const std::string &key,
                  const std::string &unit) {
    std::string value = text(node, key);
    try {
      return parseQuantity(value, unit);
    } catch (const Error &error) {
      fail(node[key], key + ": " + error.what());
    }
  }

  void readDevice(const YAML::Node &node) {
    expectKeys(node, {"name", "memory", "bandwidth", "ops", "target"});
    plan::Device device{
        text(node, "name"), uint64_t(quantity(node, "memory", "B")),
        quantity(node, "bandwidth", "B/s"), quantity(node, "ops", "op/s")};
    for (const plan::Device &other : result.devices)
      if (other.name == device.name)
        fail(node, "device '" + device.name + "' appears twice");
    std::string targets;
    try {
      targets = parseTargets(node["target"] ? text(node, "target") : "host");
    } catch (const Error &error) {
      fail(node["target"], error.what());
    }
    result.devices.push_back(device);
    result.targets.push_back(targets);
  }

  size_t deviceIndex(const YAML::Node &node) {
    auto name = node.as<std::string>("");
    for (size_t i = 0; i < result.devices.size(); ++i)
      if (result.devices[i].name == name)
        return i;
    fail(node, "no device named '" + name + "'");
  }

  void readLink(const YAML::Node &node) {
    expectKeys(node, {"between", "latency", "bandwidth"});
    YAML::Node ends = list(node, "between");
    if (ends.size() != 2)
      fail(ends, "a link joins two devices");
    plan::Link link{deviceIndex(ends[0]), deviceIndex(ends[1]),
                    quantity(node, "latency", "s"),
                    quantity(node, "bandwidth", "B/s")};
    if (link.a == link.b)
      fail(ends, "a link joins two different devices");
    result.links.push_back(link);
  }
};
} // namespace

Topology isthmus::readTopology(const std::filesystem::path &path) {
  return TopologyReader(path).read();
}

Topology isthmus::hostTopology() {
  Topology result;
  auto memory =
      uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGESIZE));
  // Nominal speeds: with one device there is nothing to choose.
  result.devices.push_back({"host", memory, 20e9, 200e9});
  result.targets.push_back(hostTarget().name);
  return result;
}
