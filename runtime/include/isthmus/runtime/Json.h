//===- Json.h - checked reading of JSON numbers -----------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Error.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

namespace isthmus::rt {

/// An integer that fits int64; throws Error naming `what` for anything else.
/// (The library converts a float silently, which is undefined beyond the
/// range.)
inline int64_t jsonInteger(const nlohmann::json &value, std::string_view what) {
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX))
    throw Error("{} must be an integer", what);
  return value.get<int64_t>();
}

} // namespace isthmus::rt
