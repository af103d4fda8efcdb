//===- PreTokenizer.h - cuts text into words --------------------*- C++ -*-===//
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::rt {

/// One step of pre-tokenization: cuts each piece at the matches of a pattern.
/// Matches and what lies between them become pieces (behaviour "Isolated").
class PreTokenizer {
public:
  /// `pattern` in the syntax of Hugging Face's tokenizers (Oniguruma); empty:
  /// do not cut. Throws Error if it does not compile.
  PreTokenizer(std::string_view pattern, bool addPrefixSpace);

  /// Pieces must be valid UTF-8.
  void split(std::vector<std::string_view> &pieces) const;
  bool addPrefixSpace() const { return prefixSpace; }

private:
  struct Code;
  std::shared_ptr<const Code> code;
  bool prefixSpace;
};

/// The steps of a `pre_tokenizer` object. Throws Error for unsupported types.
std::vector<PreTokenizer> parsePreTokenizers(const nlohmann::json &config);

} // namespace isthmus::rt
