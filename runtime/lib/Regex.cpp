//===- Regex.cpp - patterns of tokenizers ---------------------------------===//
#define PCRE2_CODE_UNIT_WIDTH 8
#include "Regex.h"

#include "isthmus/runtime/Error.h"

#include <pcre2.h>

using namespace isthmus::rt;

struct Regex::Code {
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

Regex::Regex(std::string_view pattern) {
  std::string translated = translate(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Code>();
  compiled->code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (!compiled->code)
    throw Error("the pattern '{}' does not compile", pattern);
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);
  code = compiled;
}

Regex Regex::literal(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    if (std::string_view(R"(\^$.|?*+()[]{})").find(c) != std::string_view::npos)
      escaped += '\\';
    escaped += c;
  }
  return Regex(escaped);
}

void Regex::forEachMatch(std::string_view text,
                         const std::function<void(size_t, size_t)> &use) const {
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code->code, nullptr),
      pcre2_match_data_free);
  for (size_t from = 0; from < text.size();) {
    int count =
        pcre2_match(code->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                    text.size(), from, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
    if (count < 0)
      return;
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(data.get());
    if (range[1] > range[0]) {
      use(range[0], range[1]);
      from = range[1];
      continue;
    }
    // An empty match: on with the next character.
    from = range[1] + 1;
    while (from < text.size() && (uint8_t(text[from]) & 0xC0) == 0x80)
      ++from;
  }
}

bool Regex::matches(std::string_view text) const {
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code->code, nullptr),
      pcre2_match_data_free);
  return pcre2_match(code->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                     text.size(), 0, 0, data.get(), nullptr) >= 0;
}
