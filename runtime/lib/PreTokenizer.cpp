//===- PreTokenizer.cpp - cuts text into words ----------------------------===//
#define PCRE2_CODE_UNIT_WIDTH 8
#include "PreTokenizer.h"

#include "isthmus/runtime/Error.h"

#include <nlohmann/json.hpp>
#include <pcre2.h>

using namespace isthmus::rt;
using nlohmann::json;

struct PreTokenizer::Code {
  pcre2_code *code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

/// White space as Oniguruma (and Unicode's White_Space) has it; PCRE2's \s
/// would add U+180E.
static constexpr std::string_view kSpaces =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

static std::string translate(std::string_view pattern) {
  std::string out;
  bool inClass = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      char next = pattern[++i];
      if (next == 's')
        out += inClass ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
      else if (next == 'S' && !inClass)
        out += fmt::format("[^{}]", kSpaces);
      else
        out += {c, next};
      continue;
    }
    if (c == '[')
      inClass = true;
    else if (c == ']')
      inClass = false;
    out += c;
  }
  return out;
}

PreTokenizer::PreTokenizer(std::string_view pattern, bool addPrefixSpace)
    : prefixSpace(addPrefixSpace) {
  if (pattern.empty())
    return;
  std::string translated = translate(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Code>();
  compiled->code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (!compiled->code)
    throw Error("tokenizer.json: the pattern '{}' does not compile", pattern);
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);
  code = compiled;
}

void PreTokenizer::split(std::vector<std::string_view> &pieces) const {
  if (!code)
    return;
  std::vector<std::string_view> result;
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code->code, nullptr),
      pcre2_match_data_free);
  for (std::string_view piece : pieces) {
    size_t at = 0;
    for (size_t from = 0; from < piece.size();) {
      int count = pcre2_match(
          code->code, reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(),
          from, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
      if (count < 0)
        break;
      const PCRE2_SIZE *range = pcre2_get_ovector_pointer(data.get());
      size_t first = range[0], last = range[1];
      if (last == first) { // an empty match cuts nothing
        from = last + 1;
        continue;
      }
      if (first > at)
        result.push_back(piece.substr(at, first - at));
      result.push_back(piece.substr(first, last - first));
      at = from = last;
    }
    if (at < piece.size())
      result.push_back(piece.substr(at));
  }
  pieces = std::move(result);
}

/// GPT-2's words (github.com/openai/gpt-2, encoder.py).
static constexpr std::string_view kWords =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

static std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (std::string_view(R"(\^$.|?*+()[]{})").find(c) != std::string_view::npos)
      out += '\\';
    out += c;
  }
  return out;
}

static void parseInto(const json &config, std::vector<PreTokenizer> &steps) {
  std::string type = config.at("type");
  if (type == "Sequence") {
    for (const json &inner : config.at("pretokenizers"))
      parseInto(inner, steps);
  } else if (type == "Digits") {
    steps.emplace_back(config.value("individual_digits", false) ? R"(\p{N})"
                                                                : R"(\p{N}+)",
                       false);
  } else if (type == "ByteLevel") {
    steps.emplace_back(config.value("use_regex", true) ? kWords : "",
                       config.value("add_prefix_space", true));
  } else if (type == "Split") {
    if (config.value("behavior", "") != "Isolated" ||
        config.value("invert", false))
      throw Error("tokenizer.json: Split is supported with behavior Isolated");
    const json &pattern = config.at("pattern");
    if (pattern.contains("Regex"))
      steps.emplace_back(pattern.at("Regex").get<std::string>(), false);
    else
      steps.emplace_back(escape(pattern.at("String").get<std::string>()),
                         false);
  } else {
    throw Error("tokenizer.json: pre-tokenizer '{}' is not supported", type);
  }
}

std::vector<PreTokenizer> isthmus::rt::parsePreTokenizers(const json &config) {
  std::vector<PreTokenizer> steps;
  parseInto(config, steps);
  return steps;
}
