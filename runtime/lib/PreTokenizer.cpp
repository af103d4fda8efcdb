//===- PreTokenizer.cpp - cuts text into words ----------------------------===//
#include "PreTokenizer.h"

#include "isthmus/runtime/Error.h"

#include <nlohmann/json.hpp>

using namespace isthmus::rt;
using nlohmann::json;

void PreTokenizer::split(std::vector<std::string_view> &pieces) const {
  if (!pattern)
    return;
  std::vector<std::string_view> result;
  for (std::string_view piece : pieces) {
    size_t at = 0; // end of what is in pieces
    auto add = [&](size_t first, size_t last) {
      if (last > first)
        result.push_back(piece.substr(first, last - first));
    };
    pattern->forEachMatch(piece, [&](size_t first, size_t last) {
      if (kept == Pieces::WithMatch) {
        add(at, last);
      } else {
        if (kept != Pieces::Matches)
          add(at, first);
        if (kept != Pieces::Rest)
          add(first, last);
      }
      at = last;
    });
    if (kept != Pieces::Matches)
      add(at, piece.size());
  }
  pieces = std::move(result);
}

/// GPT-2's words (github.com/openai/gpt-2, encoder.py).
static constexpr std::string_view kGPT2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// BERT's: white space goes, a punctuation mark is a word of its own, and so
/// are ASCII's symbols.
static constexpr std::string_view kBertPunctuation =
    R"([\p{P}!-/:-@\x5b-`{-~])";

static PreTokenizer parseSplit(const json &config) {
  using Pieces = PreTokenizer::Pieces;
  const std::string behavior = config.value("behavior", "");
  const bool inverted = config.value("invert", false);
  Pieces kept;
  if (behavior == "Isolated" && !inverted)
    kept = Pieces::All;
  else if (behavior == "Removed")
    kept = inverted ? Pieces::Matches : Pieces::Rest;
  else if (behavior == "MergedWithPrevious" && !inverted)
    kept = Pieces::WithMatch;
  else
    throw Error("tokenizer.json: Split with behavior '{}'{} is not supported",
                behavior, inverted ? ", inverted," : "");
  const json &pattern = config.at("pattern");
  if (pattern.contains("Regex"))
    return {Regex(pattern.at("Regex").get<std::string>()), kept, false};
  return {Regex::literal(pattern.at("String").get<std::string>()), kept, false};
}

static void parseInto(const json &config, std::vector<PreTokenizer> &steps) {
  using Pieces = PreTokenizer::Pieces;
  std::string type = config.at("type");
  if (type == "Sequence") {
    for (const json &inner : config.at("pretokenizers"))
      parseInto(inner, steps);
  } else if (type == "Digits") {
    const bool single = config.value("individual_digits", false);
    steps.emplace_back(Regex(single ? R"(\p{N})" : R"(\p{N}+)"), Pieces::All,
                       false);
  } else if (type == "ByteLevel") {
    std::optional<Regex> words;
    if (config.value("use_regex", true))
      words.emplace(kGPT2Words);
    steps.emplace_back(words, Pieces::All,
                       config.value("add_prefix_space", true));
  } else if (type == "BertPreTokenizer") {
    steps.emplace_back(Regex(R"(\s+)"), Pieces::Rest, false);
    steps.emplace_back(Regex(kBertPunctuation), Pieces::All, false);
  } else if (type == "WhitespaceSplit") {
    steps.emplace_back(Regex(R"(\s+)"), Pieces::Rest, false);
  } else if (type == "Split") {
    steps.push_back(parseSplit(config));
  } else {
    throw Error("tokenizer.json: pre-tokenizer '{}' is not supported", type);
  }
}

std::vector<PreTokenizer> isthmus::rt::parsePreTokenizers(const json &config) {
  std::vector<PreTokenizer> steps;
  if (!config.is_null())
    parseInto(config, steps);
  return steps;
}
