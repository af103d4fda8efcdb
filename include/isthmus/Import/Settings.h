//===- Settings.h - what a model file says about itself ---------*- C++ -*-===//
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace isthmus::import {

/// The configuration of a checkpoint, under the names of Hugging Face's
/// config.json; readers of other files translate. Members of objects are named
/// "rope_scaling.factor"; what is null is absent. Everything is checked where
/// it is asked for: errors (rt::Error) name the file and the setting.
class Settings {
public:
  using Value =
      std::variant<bool, int64_t, double, std::string, std::vector<int64_t>,
                   std::vector<double>, std::vector<std::string>>;

  explicit Settings(std::string where = {}) : where(std::move(where)) {}

  void set(const std::string &name, Value value) {
    values[name] = std::move(value);
  }
  bool has(const std::string &name) const { return values.contains(name); }

  /// A size: 1 to `most`.
  int64_t size(const std::string &name, int64_t most = 1 << 24,
               std::optional<int64_t> fallback = std::nullopt) const;
  int64_t integer(const std::string &name, int64_t fallback) const;
  /// A number between the limits, ends included.
  double number(const std::string &name, double least, double most,
                std::optional<double> fallback = std::nullopt) const;
  /// `count` finite numbers.
  std::vector<double> numbers(const std::string &name, size_t count,
                              const std::vector<double> &fallback) const;
  bool flag(const std::string &name, bool fallback) const;
  std::string text(const std::string &name, const std::string &fallback) const;
  std::vector<std::string> texts(const std::string &name) const;

  /// Throws that the setting has a value that is not supported, and what is.
  [[noreturn]] void reject(const std::string &name,
                           const std::string &supported) const;
  /// The file that says so.
  const std::string &file() const { return where; }

private:
  template <typename T> const T *find(const std::string &name) const;

  std::string where;
  std::map<std::string, Value> values;
};

} // namespace isthmus::import
