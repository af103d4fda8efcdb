//===- TextStream.h - tokens to text, with stop strings ---------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Tokenizer.h"

#include <string>
#include <vector>

namespace isthmus::rt {

/// Turns tokens into text as they come: gives out only whole UTF-8 characters,
/// and holds back what may be the beginning of a stop string.
class TextStream {
public:
  TextStream(const Tokenizer &tokenizer, std::vector<std::string> stop)
      : tokenizer(tokenizer), stop(std::move(stop)) {}

  /// Adds a token and returns the text that became certain.
  std::string push(int32_t token);
  /// The rest, after the last token.
  std::string finish();
  /// True once a stop string was found; text from there on is dropped.
  bool stopped() const { return found; }

private:
  std::string release(bool all);

  const Tokenizer &tokenizer;
  std::vector<std::string> stop;
  std::string pending;
  bool found = false;
};

} // namespace isthmus::rt
