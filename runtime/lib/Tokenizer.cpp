//===- Tokenizer.cpp - byte-level BPE as Hugging Face defines it ----------===//
#include "isthmus/runtime/Tokenizer.h"

#include "PreTokenizer.h"
#include "Vocabulary.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Json.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>
#include <utf8proc.h>

using namespace isthmus::rt;
using nlohmann::json;

namespace {
/// GPT-2's map from bytes to printable characters, as UTF-8.
const std::array<std::string, 256> &byteSymbols() {
  static const std::array<std::string, 256> table = [] {
    std::array<std::string, 256> symbols;
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      bool printable = (byte >= '!' && byte <= '~') ||
                       (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      int code = printable ? byte : next++;
      std::string &out = symbols[size_t(byte)];
      if (code < 0x80)
        out = {char(code)};
      else
        out = {char(0xC0 | code >> 6), char(0x80 | (code & 63))};
    }
    return symbols;
  }();
  return table;
}

int32_t checkedId(const json &value) {
  int64_t id = jsonInteger(value, "tokenizer.json: a token id");
  if (id < 0 || id >= (1 << 24))
    throw Error("tokenizer.json: token id {} is out of range", id);
  return int32_t(id);
}

json parseJson(std::string_view text) {
  try {
    return json::parse(text);
  } catch (const json::exception &error) {
    throw Error("tokenizer.json: {}", error.what());
  }
}

void checkModel(const json &model) {
  if (model.value("type", "BPE") != "BPE")
    throw Error("tokenizer.json: model '{}' is not supported; BPE is",
                model.value("type", ""));
  if (model.value("byte_fallback", false))
    throw Error("tokenizer.json: byte fallback is not supported");
}

/// Tokens and merges of the model in a tokenizer.json.
std::vector<std::byte> buildVocabulary(const json &model) {
  std::vector<std::string> tokens;
  for (const auto &[token, value] : model.at("vocab").items()) {
    auto id = size_t(checkedId(value));
    if (id >= tokens.size())
      tokens.resize(id + 1);
    if (!tokens[id].empty())
      throw Error("tokenizer.json: tokens '{}' and '{}' have the same id {}",
                  tokens[id], token, id);
    tokens[id] = token;
  }
  std::unordered_map<std::string_view, uint32_t> ids;
  ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id)
    ids.emplace(tokens[id], uint32_t(id));
  std::vector<Vocabulary::Merge> merges;
  for (const json &merge : model.at("merges")) {
    std::string left, right;
    if (merge.is_array() && merge.size() == 2) {
      left = merge[0];
      right = merge[1];
    } else {
      auto text = merge.get<std::string>();
      size_t space = text.find(' ');
      if (space == std::string::npos)
        throw Error("tokenizer.json: merge '{}' is not a pair", text);
      left = text.substr(0, space);
      right = text.substr(space + 1);
    }
    auto a = ids.find(left), b = ids.find(right), both = ids.find(left + right);
    if (a == ids.end() || b == ids.end() || both == ids.end())
      throw Error("tokenizer.json: merge '{} {}' is not in the vocabulary",
                  left, right);
    merges.push_back({a->second, b->second, both->second});
  }
  return Vocabulary::build(tokens, merges);
}
} // namespace

struct Tokenizer::Impl {
  Vocabulary vocabulary;
  size_t tokenCount; ///< ids of tokens and added tokens are below
  std::vector<PreTokenizer> preTokenizers;
  bool normalizeNFC = false, ignoreMerges = false;
  std::array<int32_t, 256> byteIds{};

  struct Added {
    std::string content;
    int32_t id;
    bool special;
  };
  std::vector<Added> added; ///< longest first
  std::array<bool, 256> addedStart{};
  std::unordered_map<int32_t, size_t> addedById;
  std::unordered_map<std::string, uint8_t> symbolBytes;

  /// Words come again and again: their ids are remembered.
  mutable std::mutex cacheMutex;
  mutable std::unordered_map<std::string, std::vector<int32_t>> cache;
  static constexpr size_t kCacheEntries = 20000, kCacheWord = 64;

  /// Throws json::exception too.
  Impl(const json &root, std::span<const std::byte> vocabularyBytes)
      : vocabulary(vocabularyBytes), tokenCount(vocabulary.size()) {
    const json &model = root.at("model");
    checkModel(model);
    ignoreMerges = model.value("ignore_merges", false);
    for (size_t byte = 0; byte < 256; ++byte) {
      const std::string &symbol = byteSymbols()[byte];
      symbolBytes[symbol] = uint8_t(byte);
      byteIds[byte] = vocabulary.find(symbol).value_or(-1);
    }
    readAdded(root);
    if (root.contains("normalizer"))
      readNormalizer(root.at("normalizer"));
    if (!root.contains("pre_tokenizer") || root.at("pre_tokenizer").is_null())
      throw Error("tokenizer.json: has no pre-tokenizer; only byte-level "
                  "tokenizers are supported");
    preTokenizers = parsePreTokenizers(root.at("pre_tokenizer"));
  }

  void readAdded(const json &root) {
    if (!root.contains("added_tokens"))
      return;
    for (const json &token : root.at("added_tokens")) {
      Added entry{token.at("content"), checkedId(token.at("id")),
                  token.value("special", false)};
      if (entry.content.empty())
        continue;
      if (token.value("lstrip", false) || token.value("rstrip", false) ||
          token.value("single_word", false))
        throw Error("tokenizer.json: added token '{}' strips or is a single "
                    "word, which is not supported",
                    entry.content);
      tokenCount = std::max(tokenCount, size_t(entry.id) + 1);
      addedStart[uint8_t(entry.content[0])] = true;
      added.push_back(std::move(entry));
    }
    std::sort(added.begin(), added.end(), [](const Added &a, const Added &b) {
      return a.content.size() != b.content.size()
                 ? a.content.size() > b.content.size()
                 : a.id < b.id;
    });
    for (size_t i = 0; i < added.size(); ++i)
      addedById[added[i].id] = i;
  }

  void readNormalizer(const json &config) {
    if (config.is_null())
      return;
    std::string type = config.at("type");
    if (type == "NFC")
      normalizeNFC = true;
    else if (type == "Sequence")
      for (const json &inner : config.at("normalizers"))
        readNormalizer(inner);
    else
      throw Error("tokenizer.json: normalizer '{}' is not supported", type);
  }

  static std::string validUtf8(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      utf8proc_int32_t code;
      auto length = utf8proc_iterate(
          reinterpret_cast<const utf8proc_uint8_t *>(text.data() + i),
          utf8proc_ssize_t(text.size() - i), &code);
      if (length > 0)
        out += text.substr(i, size_t(length));
      else
        out += "\xEF\xBF\xBD";
      i += size_t(std::max<utf8proc_ssize_t>(length, 1));
    }
    return out;
  }

  std::string normalize(std::string_view unchecked) const {
    std::string text = validUtf8(unchecked);
    if (!normalizeNFC)
      return text;
    utf8proc_uint8_t *result = nullptr;
    auto size =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t *>(text.data()),
                     utf8proc_ssize_t(text.size()), &result,
                     utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (size < 0)
      throw Error("no memory to normalise {} bytes of text", text.size());
    std::string out(reinterpret_cast<char *>(result), size_t(size));
    free(result);
    return out;
  }

  //===--- Encoding -------------------------------------------------------===//

  void encodePlain(std::string_view text, std::vector<int32_t> &out) const {
    if (text.empty())
      return;
    std::string normalized = normalize(text);
    std::vector<std::string_view> pieces{normalized};
    // ByteLevel's prefix space makes a new string; it must outlive the pieces.
    std::string prefixed;
    for (const PreTokenizer &step : preTokenizers) {
      if (step.addPrefixSpace() && !pieces.empty() && !pieces[0].empty() &&
          pieces[0][0] != ' ' && pieces.size() == 1) {
        prefixed = " " + std::string(pieces[0]);
        pieces[0] = prefixed;
      }
      step.split(pieces);
    }
    for (std::string_view piece : pieces)
      encodeWord(piece, out);
  }

  void encodeWord(std::string_view word, std::vector<int32_t> &out) const {
    const bool cached = word.size() <= kCacheWord;
    std::string key(word);
    if (cached) {
      std::lock_guard lock(cacheMutex);
      auto it = cache.find(key);
      if (it != cache.end()) {
        out.insert(out.end(), it->second.begin(), it->second.end());
        return;
      }
    }
    std::vector<int32_t> ids = merge(word);
    out.insert(out.end(), ids.begin(), ids.end());
    if (cached) {
      std::lock_guard lock(cacheMutex);
      if (cache.size() >= kCacheEntries)
        cache.clear();
      cache.emplace(std::move(key), std::move(ids));
    }
  }

  /// Joins the pair of lowest rank, leftmost first, until none is left:
  /// O(n log n) with a queue of candidate pairs over a linked list.
  std::vector<int32_t> merge(std::string_view word) const {
    if (ignoreMerges) {
      std::string symbols;
      for (char c : word)
        symbols += byteSymbols()[uint8_t(c)];
      if (auto id = vocabulary.find(symbols))
        return {*id};
    }
    struct Node {
      int32_t id, previous, next;
    };
    struct Candidate {
      int32_t rank, position, left, right, result;
      bool operator<(const Candidate &other) const {
        return rank != other.rank ? rank > other.rank
                                  : position > other.position;
      }
    };
    std::vector<Node> nodes;
    for (char c : word) {
      int32_t id = byteIds[uint8_t(c)];
      if (id >= 0)
        nodes.push_back(
            {id, int32_t(nodes.size()) - 1, int32_t(nodes.size()) + 1});
    }
    if (nodes.empty())
      return {};
    nodes.back().next = -1;
    std::priority_queue<Candidate> queue;
    auto consider = [&](int32_t left) {
      if (left < 0 || nodes[size_t(left)].next < 0)
        return;
      const Node &a = nodes[size_t(left)];
      const Node &b = nodes[size_t(a.next)];
      if (auto found = vocabulary.merge(a.id, b.id))
        queue.push({found->rank, left, a.id, b.id, found->result});
    };
    for (size_t i = 0; i < nodes.size(); ++i)
      consider(int32_t(i));
    while (!queue.empty()) {
      Candidate best = queue.top();
      queue.pop();
      Node &left = nodes[size_t(best.position)];
      if (left.id != best.left || left.next < 0 ||
          nodes[size_t(left.next)].id != best.right)
        continue; // one of the two was merged since
      Node &right = nodes[size_t(left.next)];
      left.id = best.result;
      right.id = -1;
      left.next = right.next;
      if (left.next >= 0)
        nodes[size_t(left.next)].previous = best.position;
      consider(left.previous);
      consider(best.position);
    }
    std::vector<int32_t> ids;
    for (int32_t i = 0; i >= 0; i = nodes[size_t(i)].next)
      ids.push_back(nodes[size_t(i)].id);
    return ids;
  }

  /// The added token at `position`, or nullptr.
  const Added *addedAt(std::string_view text, size_t position) const {
    if (!addedStart[uint8_t(text[position])])
      return nullptr;
    for (const Added &entry : added)
      if (text.substr(position).starts_with(entry.content))
        return &entry;
    return nullptr;
  }
};

CompiledTokenizer isthmus::rt::compileTokenizer(std::string_view text) {
  json root = parseJson(text);
  try {
    CompiledTokenizer out;
    checkModel(root.at("model"));
    out.vocabulary = buildVocabulary(root.at("model"));
    root.at("model").erase("vocab");
    root.at("model").erase("merges");
    out.config = root.dump(-1, ' ', false, json::error_handler_t::replace);
    return out;
  } catch (const json::exception &error) {
    throw Error("tokenizer.json: {}", error.what());
  }
}

Tokenizer::Tokenizer(std::string_view config,
                     std::span<const std::byte> vocabulary) {
  try {
    impl = std::make_unique<Impl>(parseJson(config), vocabulary);
  } catch (const json::exception &error) {
    throw Error("tokenizer.json: {}", error.what());
  }
}

Tokenizer::Tokenizer(std::string_view text) {
  CompiledTokenizer compiled = compileTokenizer(text);
  owned = std::move(compiled.vocabulary);
  impl = Tokenizer(compiled.config, owned).impl;
}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer &&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text,
                                       std::span<const Range> untrusted) const {
  std::vector<int32_t> ids;
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    const Impl::Added *token = impl->addedAt(text, i);
    if (token && token->special) {
      size_t end = i + token->content.size();
      for (auto [first, last] : untrusted)
        if (i < last && first < end) {
          token = nullptr;
          break;
        }
    }
    if (!token) {
      ++i;
      continue;
    }
    impl->encodePlain(text.substr(start, i - start), ids);
    ids.push_back(token->id);
    i += token->content.size();
    start = i;
  }
  impl->encodePlain(text.substr(start), ids);
  return ids;
}

std::string Tokenizer::decode(int32_t id, bool special) const {
  if (auto it = impl->addedById.find(id); it != impl->addedById.end()) {
    const Impl::Added &token = impl->added[it->second];
    return token.special && !special ? "" : token.content;
  }
  std::string_view text = impl->vocabulary.text(id);
  std::string out;
  for (size_t i = 0; i < text.size();) {
    size_t length = uint8_t(text[i]) < 0x80 ? 1 : 2;
    auto it = impl->symbolBytes.find(std::string(text.substr(i, length)));
    if (it != impl->symbolBytes.end())
      out += char(it->second);
    i += length;
  }
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string out;
  for (int32_t id : ids)
    out += decode(id);
  return out;
}

size_t Tokenizer::vocabSize() const { return impl->tokenCount; }

bool Tokenizer::isSpecial(int32_t id) const {
  auto it = impl->addedById.find(id);
  return it != impl->addedById.end() && impl->added[it->second].special;
}
