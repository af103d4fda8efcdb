//===- Normalizer.cpp - changes text before it is cut ---------------------===//
#include "Normalizer.h"

#include "Regex.h"
#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utf8proc.h>

using namespace isthmus::rt;
using nlohmann::json;

static const utf8proc_uint8_t *bytesOf(std::string_view text) {
  return reinterpret_cast<const utf8proc_uint8_t *>(text.data());
}

std::string isthmus::rt::validUtf8(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t code;
    auto length = utf8proc_iterate(bytesOf(text.substr(i)),
                                   utf8proc_ssize_t(text.size() - i), &code);
    if (length > 0)
      out += text.substr(i, size_t(length));
    else
      out += "\xEF\xBF\xBD";
    i += size_t(std::max<utf8proc_ssize_t>(length, 1));
  }
  return out;
}

void isthmus::rt::forEachCharacter(
    std::string_view text,
    const std::function<void(int32_t, std::string_view)> &use) {
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t code;
    auto length = size_t(utf8proc_iterate(
        bytesOf(text.substr(i)), utf8proc_ssize_t(text.size() - i), &code));
    use(code, text.substr(i, length));
    i += length;
  }
}

static void append(std::string &out, int32_t code) {
  utf8proc_uint8_t bytes[4];
  auto length = utf8proc_encode_char(code, bytes);
  out.append(reinterpret_cast<char *>(bytes), size_t(length));
}

static std::string map(const std::string &text, int options) {
  utf8proc_uint8_t *result = nullptr;
  auto size =
      utf8proc_map(bytesOf(text), utf8proc_ssize_t(text.size()), &result,
                   utf8proc_option_t(UTF8PROC_STABLE | options));
  if (size < 0)
    throw Error("no memory to normalise {} bytes of text", text.size());
  std::string out(reinterpret_cast<char *>(result), size_t(size));
  free(result);
  return out;
}

/// Character by character, whatever stands around it.
static std::string lowercase(const std::string &text) {
  std::string out;
  forEachCharacter(text, [&](int32_t code, std::string_view) {
    // The only character that becomes two.
    if (code == 0x130)
      out += "i\xCC\x87";
    else
      append(out, utf8proc_tolower(code));
  });
  return out;
}

static std::string withoutAccents(const std::string &text) {
  std::string out;
  forEachCharacter(map(text, UTF8PROC_DECOMPOSE),
                   [&](int32_t code, std::string_view character) {
                     if (utf8proc_category(code) != UTF8PROC_CATEGORY_MN)
                       out += character;
                   });
  return out;
}

static bool isSpace(int32_t code) {
  return (code >= 9 && code <= 13) || code == 0x85 ||
         utf8proc_category(code) == UTF8PROC_CATEGORY_ZS || code == 0x2028 ||
         code == 0x2029;
}

/// Control and unassigned characters go, all white space becomes blanks.
static std::string clean(const std::string &text) {
  std::string out;
  forEachCharacter(text, [&](int32_t code, std::string_view character) {
    if (code == '\t' || code == '\n' || code == '\r') {
      out += ' ';
      return;
    }
    const auto category = utf8proc_category(code);
    if (code == 0 || code == 0xFFFD || category == UTF8PROC_CATEGORY_CC ||
        category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO)
      return;
    if (isSpace(code))
      out += ' ';
    else
      out += character;
  });
  return out;
}

/// Blanks around what BERT takes for Chinese characters.
static std::string separateIdeographs(const std::string &text) {
  static constexpr std::pair<int32_t, int32_t> kBlocks[] = {
      {0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
      {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
      {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
  std::string out;
  forEachCharacter(text, [&](int32_t code, std::string_view character) {
    const bool separate = std::ranges::any_of(kBlocks, [&](auto block) {
      return code >= block.first && code <= block.second;
    });
    if (separate)
      out += ' ';
    out += character;
    if (separate)
      out += ' ';
  });
  return out;
}

static void parseBert(const json &config, std::vector<Normalizer> &steps) {
  const bool lower = config.value("lowercase", true);
  if (config.value("clean_text", true))
    steps.emplace_back(clean);
  if (config.value("handle_chinese_chars", true))
    steps.emplace_back(separateIdeographs);
  const json strip = config.value("strip_accents", json());
  if (strip.is_boolean() ? strip.get<bool>() : lower)
    steps.emplace_back(withoutAccents);
  if (lower)
    steps.emplace_back(lowercase);
}

static Normalizer parseReplace(const json &config) {
  const json &pattern = config.at("pattern");
  Regex regex = pattern.contains("Regex")
                    ? Regex(pattern.at("Regex").get<std::string>())
                    : Regex::literal(pattern.at("String").get<std::string>());
  return [regex, content = config.at("content").get<std::string>()](
             const std::string &text) {
    std::string out;
    size_t at = 0;
    regex.forEachMatch(text, [&](size_t first, size_t last) {
      out.append(text, at, first - at);
      out += content;
      at = last;
    });
    return out.append(text, at);
  };
}

static void parseInto(const json &config, std::vector<Normalizer> &steps) {
  const std::string type = config.at("type");
  auto addMap = [&](int options) {
    steps.emplace_back(
        [options](const std::string &text) { return map(text, options); });
  };
  if (type == "Sequence")
    for (const json &inner : config.at("normalizers"))
      parseInto(inner, steps);
  else if (type == "NFC")
    addMap(UTF8PROC_COMPOSE);
  else if (type == "NFD")
    addMap(UTF8PROC_DECOMPOSE);
  else if (type == "NFKC")
    addMap(UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
  else if (type == "NFKD")
    addMap(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  else if (type == "Lowercase")
    steps.emplace_back(lowercase);
  else if (type == "BertNormalizer")
    parseBert(config, steps);
  else if (type == "Replace")
    steps.push_back(parseReplace(config));
  else if (type == "Prepend")
    steps.emplace_back([prefix = config.at("prepend").get<std::string>()](
                           const std::string &text) { return prefix + text; });
  else
    throw Error("tokenizer.json: normalizer '{}' is not supported", type);
}

std::vector<Normalizer> isthmus::rt::parseNormalizers(const json &config) {
  std::vector<Normalizer> steps;
  if (!config.is_null())
    parseInto(config, steps);
  return steps;
}
