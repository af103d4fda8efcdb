//===- Fields.h - reads the bodies of requests ------------------*- C++ -*-===//
#pragma once

#include "OpenAI.h"

#include <cmath>

namespace isthmus::rt {

/// Reads fields of a request with their type and range; names them in errors.
class Fields {
public:
  explicit Fields(const nlohmann::json &object) : object(object) {}

  bool has(const char *name) const {
    auto it = object.find(name);
    return it != object.end() && !it->is_null();
  }
  const nlohmann::json &at(const char *name) const { return object.at(name); }

  double number(const char *name, double fallback, double least,
                double most) const {
    if (!has(name))
      return fallback;
    const nlohmann::json &value = at(name);
    double number = value.is_number() ? value.get<double>() : NAN;
    if (!(number >= least && number <= most))
      throw ApiError(
          400,
          fmt::format("'{}' must be a number from {} to {}", name, least, most),
          name);
    return number;
  }
  int64_t integer(const char *name, int64_t fallback, int64_t least,
                  int64_t most) const {
    if (!has(name))
      return fallback;
    const nlohmann::json &value = at(name);
    if (!value.is_number_integer() || value.get<int64_t>() < least ||
        value.get<int64_t>() > most)
      throw ApiError(400,
                     fmt::format("'{}' must be an integer from {} to {}", name,
                                 least, most),
                     name);
    return value.get<int64_t>();
  }
  bool boolean(const char *name, bool fallback) const {
    if (!has(name))
      return fallback;
    if (!at(name).is_boolean())
      throw ApiError(400, fmt::format("'{}' must be true or false", name),
                     name);
    return at(name).get<bool>();
  }

private:
  const nlohmann::json &object;
};

/// A list of token ids. Throws ApiError that says that `parameter` must be
/// `expected` if it is none.
std::vector<int32_t> readIds(const nlohmann::json &list,
                             const std::string &parameter,
                             const std::string &expected);

/// The JSON object of a body. Throws ApiError if it is none, or asks for
/// another model.
nlohmann::json parseBody(const std::string &body, const ServedModel &model);

} // namespace isthmus::rt
