//===- TokenizerJson.cpp - a tokenizer.json from GGUF metadata ------------===//
#include "isthmus/Import/TokenizerJson.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_map>

using isthmus::rt::Error;
using nlohmann::json;

static json byteLevel(bool splitWords) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", splitWords}};
}

static json splitThenBytes(const char *pattern) {
  json split = {{"type", "Split"},
                {"pattern", {{"Regex", pattern}}},
                {"behavior", "Isolated"},
                {"invert", false}};
  return {{"type", "Sequence"},
          {"pretokenizers", json::array({split, byteLevel(false)})}};
}

static json preTokenizer(const std::string &where, const std::string &pre) {
  if (pre == "gpt-2" || pre == "default")
    return byteLevel(true);
  if (pre == "smollm") {
    json digits = {{"type", "Digits"}, {"individual_digits", true}};
    return {{"type", "Sequence"},
            {"pretokenizers", json::array({digits, byteLevel(true)})}};
  }
  if (pre == "qwen2" || pre == "deepseek-r1-qwen")
    return splitThenBytes(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
  if (pre == "llama-bpe")
    return splitThenBytes(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
  throw Error("{}: pre-tokenizer '{}' is not supported; gpt-2, smollm, qwen2 "
              "and llama-bpe are",
              where, pre);
}

/// The vocabulary, and the tokens that are matched in the text before anything
/// else.
static void addTokens(const std::string &where,
                      const std::vector<std::string> &tokens,
                      const std::vector<int64_t> &types, json &vocab,
                      json &added) {
  vocab = json::object();
  added = json::array();
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!vocab.emplace(tokens[id], id).second)
      throw Error("{}: token '{}' appears twice in the vocabulary", where,
                  tokens[id]);
    if (id < types.size() && (types[id] == 3 || types[id] == 4))
      added.push_back({{"id", id},
                       {"content", tokens[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", types[id] == 3}});
  }
}

/// Invalid UTF-8 in a hostile file must not become an exception half-way.
static std::string dump(const json &tokenizer) {
  return tokenizer.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string isthmus::import::makeTokenizerJson(
    const std::string &where, const std::vector<std::string> &tokens,
    const std::vector<int64_t> &types, const std::vector<std::string> &merges,
    const std::string &pre) {
  json vocab, added, mergeList = json::array();
  addTokens(where, tokens, types, vocab, added);
  for (const std::string &merge : merges) {
    size_t space = merge.find(' ', 1);
    if (space == std::string::npos)
      throw Error("{}: merge '{}' is not a pair", where, merge);
    mergeList.push_back(
        json::array({merge.substr(0, space), merge.substr(space + 1)}));
  }
  json normalizer;
  if (pre == "qwen2" || pre == "deepseek-r1-qwen")
    normalizer = {{"type", "NFC"}};
  return dump({{"version", "1.0"},
               {"added_tokens", std::move(added)},
               {"normalizer", std::move(normalizer)},
               {"pre_tokenizer", preTokenizer(where, pre)},
               {"decoder", byteLevel(true)},
               {"model",
                {{"type", "BPE"},
                 {"ignore_merges", pre == "llama-bpe"},
                 {"vocab", std::move(vocab)},
                 {"merges", std::move(mergeList)}}}});
}

/// The pairs of tokens that make a token, the best score first: SentencePiece
/// joins whatever becomes the best token, and has no list of its own.
static json mergesByScore(const std::vector<std::string> &tokens,
                          const std::vector<int64_t> &types,
                          const std::vector<double> &scores) {
  std::unordered_map<std::string_view, size_t> ids;
  auto isPlain = [&](size_t id) {
    return id >= types.size() || types[id] == 1;
  };
  for (size_t id = 0; id < tokens.size(); ++id)
    if (isPlain(id))
      ids.emplace(tokens[id], id);
  struct Merge {
    double score;
    size_t id, split;
  };
  std::vector<Merge> merges;
  for (const auto &[token, id] : ids)
    for (size_t split = 1; split < token.size(); ++split)
      if (ids.contains(token.substr(0, split)) &&
          ids.contains(token.substr(split)))
        merges.push_back({scores[id], id, split});
  std::sort(merges.begin(), merges.end(), [](const Merge &a, const Merge &b) {
    return std::tuple(-a.score, a.id, a.split) <
           std::tuple(-b.score, b.id, b.split);
  });
  json list = json::array();
  for (const Merge &merge : merges)
    list.push_back(json::array({tokens[merge.id].substr(0, merge.split),
                                tokens[merge.id].substr(merge.split)}));
  return list;
}

std::string isthmus::import::makeSentencePieceJson(
    const std::string &where, const std::vector<std::string> &tokens,
    const std::vector<int64_t> &types, const std::vector<double> &scores,
    bool addSpacePrefix) {
  if (scores.size() != tokens.size())
    throw Error("{}: {} token scores for {} tokens", where, scores.size(),
                tokens.size());
  for (double score : scores)
    if (!std::isfinite(score))
      throw Error("{}: a token score is not a number", where);
  json vocab, added;
  addTokens(where, tokens, types, vocab, added);
  json steps = json::array();
  if (addSpacePrefix)
    steps.push_back({{"type", "Prepend"}, {"prepend", "\u2581"}});
  steps.push_back({{"type", "Replace"},
                   {"pattern", {{"String", " "}}},
                   {"content", "\u2581"}});
  return dump({{"version", "1.0"},
               {"added_tokens", std::move(added)},
               {"normalizer", {{"type", "Sequence"}, {"normalizers", steps}}},
               {"pre_tokenizer", nullptr},
               {"decoder", nullptr},
               {"model",
                {{"type", "BPE"},
                 {"byte_fallback", true},
                 {"vocab", std::move(vocab)},
                 {"merges", mergesByScore(tokens, types, scores)}}}});
}

std::string isthmus::import::makeWordPieceJson(
    const std::string &where, const std::vector<std::string> &tokens,
    const std::vector<int64_t> &types, size_t unknown, bool lowercase) {
  if (unknown >= tokens.size())
    throw Error("{}: the unknown token is outside the vocabulary", where);
  // llama.cpp's converter marks what begins a word instead of what goes on.
  constexpr std::string_view kBlank = "\xE2\x96\x81";
  std::vector<std::string> pieces = tokens;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (id < types.size() && types[id] == 3)
      continue;
    pieces[id] = tokens[id].starts_with(kBlank)
                     ? tokens[id].substr(kBlank.size())
                     : "##" + tokens[id];
  }
  json vocab, added;
  addTokens(where, pieces, types, vocab, added);
  return dump({{"version", "1.0"},
               {"added_tokens", std::move(added)},
               {"normalizer",
                {{"type", "BertNormalizer"},
                 {"clean_text", true},
                 {"handle_chinese_chars", true},
                 {"strip_accents", nullptr},
                 {"lowercase", lowercase}}},
               {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
               {"decoder", nullptr},
               {"model",
                {{"type", "WordPiece"},
                 {"unk_token", pieces[unknown]},
                 {"vocab", std::move(vocab)}}}});
}
