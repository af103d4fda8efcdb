//===- Sizes.h - sizes of a tensor on the command line ----------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

namespace isthmus::cli {

/// Reads "1,3,224,224"; nothing for no dimensions. Throws rt::Error.
inline std::vector<int64_t> parseSizes(const std::string &text) {
  std::vector<int64_t> sizes;
  for (size_t at = 0; at < text.size();) {
    size_t comma = std::min(text.find(',', at), text.size());
    int64_t size = 0;
    auto [end, error] =
        std::from_chars(text.data() + at, text.data() + comma, size);
    if (error != std::errc() || end != text.data() + comma || size < 0)
      throw rt::Error("'{}' is not a list of sizes: 1,3,224,224", text);
    sizes.push_back(size);
    at = comma + 1;
  }
  return sizes;
}

} // namespace isthmus::cli
