//===- Error.h - the one exception of isthmus -------------------*- C++ -*-===//
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace isthmus::rt {

/// Something the user can act on: the message names the input, the place in it
/// and, where there is one, the remedy.
class Error : public std::runtime_error {
public:
  explicit Error(const std::string &message) : std::runtime_error(message) {}

  template <typename... Args>
  explicit Error(fmt::format_string<Args...> format, Args &&...args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

} // namespace isthmus::rt
