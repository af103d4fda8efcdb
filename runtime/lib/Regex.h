//===- Regex.h - patterns of tokenizers -------------------------*- C++ -*-===//
#pragma once

#include <functional>
#include <memory>
#include <string_view>

namespace isthmus::rt {

/// A pattern in the syntax of Hugging Face's tokenizers (Oniguruma).
class Regex {
public:
  /// Throws Error if it does not compile.
  explicit Regex(std::string_view pattern);
  /// A pattern that matches just `text`.
  static Regex literal(std::string_view text);

  /// Calls `use` with the first byte of each match that is not empty, and the
  /// one after its last. `text` must be valid UTF-8.
  void forEachMatch(std::string_view text,
                    const std::function<void(size_t, size_t)> &use) const;

  /// True if it matches somewhere; false too if `text` is not UTF-8.
  bool matches(std::string_view text) const;

private:
  struct Code;
  std::shared_ptr<const Code> code;
};

} // namespace isthmus::rt
