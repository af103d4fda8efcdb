//===- PreTokenizer.h - cuts text into words --------------------*- C++ -*-===//
#pragma once

#include "Regex.h"

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::rt {

/// One step of pre-tokenization: cuts each piece at the matches of a pattern.
class PreTokenizer {
public:
  /// What becomes of matches, and of what lies between them.
  enum class Pieces {
    All,       ///< both are pieces ("Isolated")
    Matches,   ///< only matches are ("Removed", inverted)
    Rest,      ///< only the rest is ("Removed")
    WithMatch, ///< a match ends the piece before it ("MergedWithPrevious")
  };

  PreTokenizer(std::optional<Regex> pattern, Pieces kept, bool addPrefixSpace)
      : pattern(std::move(pattern)), kept(kept), prefixSpace(addPrefixSpace) {}

  /// Pieces must be valid UTF-8.
  void split(std::vector<std::string_view> &pieces) const;
  bool addPrefixSpace() const { return prefixSpace; }

private:
  std::optional<Regex> pattern; ///< none: cuts nothing
  Pieces kept;
  bool prefixSpace;
};

/// The steps of a `pre_tokenizer` object. Throws Error for unsupported types.
std::vector<PreTokenizer> parsePreTokenizers(const nlohmann::json &config);

} // namespace isthmus::rt
