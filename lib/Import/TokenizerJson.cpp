//===- TokenizerJson.cpp - a tokenizer.json from GGUF metadata ------------===//
#include "isthmus/Import/TokenizerJson.h"

#include "isthmus/runtime/Error.h"

#include <nlohmann/json.hpp>

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

std::string isthmus::import::makeTokenizerJson(
    const std::string &where, const std::vector<std::string> &tokens,
    const std::vector<int64_t> &types, const std::vector<std::string> &merges,
    const std::string &pre) {
  json vocab = json::object(), added = json::array(), mergeList = json::array();
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
  json result = {{"version", "1.0"},
                 {"added_tokens", std::move(added)},
                 {"normalizer", std::move(normalizer)},
                 {"pre_tokenizer", preTokenizer(where, pre)},
                 {"decoder", byteLevel(true)},
                 {"model",
                  {{"type", "BPE"},
                   {"ignore_merges", pre == "llama-bpe"},
                   {"vocab", std::move(vocab)},
                   {"merges", std::move(mergeList)}}}};
  // Invalid UTF-8 in a hostile file must not become an exception half-way.
  return result.dump(-1, ' ', false, json::error_handler_t::replace);
}
