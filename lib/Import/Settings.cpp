//===- Settings.cpp - what a model file says about itself -----------------===//
#include "isthmus/Import/Settings.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <cmath>
#include <fmt/ranges.h>

using namespace isthmus;
using namespace isthmus::import;
using rt::Error;

template <typename T> const T *Settings::find(const std::string &name) const {
  auto it = values.find(name);
  if (it == values.end())
    return nullptr;
  const T *value = std::get_if<T>(&it->second);
  if (!value)
    throw Error("{}: '{}' has the wrong type", where, name);
  return value;
}

int64_t Settings::size(const std::string &name, int64_t most,
                       std::optional<int64_t> fallback) const {
  const int64_t *stored = find<int64_t>(name);
  if (!stored && !fallback)
    throw Error("{}: '{}' is missing", where, name);
  const int64_t value = stored ? *stored : *fallback;
  if (value < 1 || value > most)
    throw Error("{}: '{}' is {}; expected 1 to {}", where, name, value, most);
  return value;
}

int64_t Settings::integer(const std::string &name, int64_t fallback) const {
  const int64_t *value = find<int64_t>(name);
  return value ? *value : fallback;
}

double Settings::number(const std::string &name, double least, double most,
                        std::optional<double> fallback) const {
  double value = 0;
  if (auto it = values.find(name); it == values.end()) {
    if (!fallback)
      throw Error("{}: '{}' is missing", where, name);
    value = *fallback;
  } else if (const auto *integer = std::get_if<int64_t>(&it->second)) {
    value = double(*integer);
  } else {
    value = *find<double>(name);
  }
  if (!(value >= least && value <= most))
    throw Error("{}: '{}' is {}; expected {} to {}", where, name, value, least,
                most);
  return value;
}

std::vector<double>
Settings::numbers(const std::string &name, size_t count,
                  const std::vector<double> &fallback) const {
  const auto *values = find<std::vector<double>>(name);
  if (!values)
    return fallback;
  if (values->size() != count ||
      !std::ranges::all_of(*values, [](double v) { return std::isfinite(v); }))
    reject(name, fmt::format("a list of {} numbers is", count));
  return *values;
}

bool Settings::flag(const std::string &name, bool fallback) const {
  const bool *value = find<bool>(name);
  return value ? *value : fallback;
}

std::string Settings::text(const std::string &name,
                           const std::string &fallback) const {
  const auto *value = find<std::string>(name);
  return value ? *value : fallback;
}

std::vector<std::string> Settings::texts(const std::string &name) const {
  const auto *value = find<std::vector<std::string>>(name);
  return value ? *value : std::vector<std::string>();
}

void Settings::reject(const std::string &name,
                      const std::string &supported) const {
  std::string value = "absent";
  if (auto it = values.find(name); it != values.end())
    value = std::visit([](const auto &v) { return fmt::format("{}", v); },
                       it->second);
  throw Error("{}: '{}' is {}, which is not supported; {}", where, name, value,
              supported);
}
