//===- Normalizer.h - changes text before it is cut -------------*- C++ -*-===//
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::rt {

/// One step: valid UTF-8 to valid UTF-8.
using Normalizer = std::function<std::string(std::string)>;

/// The steps of a `normalizer` object. Throws Error for unsupported types.
std::vector<Normalizer> parseNormalizers(const nlohmann::json &config);

/// The text with U+FFFD for each byte that is not UTF-8.
std::string validUtf8(std::string_view text);

/// Calls `use(code, text)` for each character of valid UTF-8.
void forEachCharacter(
    std::string_view text,
    const std::function<void(int32_t, std::string_view)> &use);

} // namespace isthmus::rt
