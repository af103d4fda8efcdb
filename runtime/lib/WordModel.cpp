//===- WordModel.cpp - from words to token ids ----------------------------===//
#include "WordModel.h"

#include "Normalizer.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Json.h"

#include <array>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>

using namespace isthmus::rt;
using nlohmann::json;

int32_t isthmus::rt::checkedTokenId(const json &value) {
  int64_t id = jsonInteger(value, "tokenizer.json: a token id");
  if (id < 0 || id >= (1 << 24))
    throw Error("tokenizer.json: token id {} is out of range", id);
  return int32_t(id);
}

std::vector<std::byte> isthmus::rt::buildVocabulary(const json &model) {
  std::vector<std::string> tokens;
  for (const auto &[token, value] : model.at("vocab").items()) {
    auto id = size_t(checkedTokenId(value));
    if (id >= tokens.size())
      tokens.resize(id + 1);
    if (!tokens[id].empty())
      throw Error("tokenizer.json: tokens '{}' and '{}' have the same id {}",
                  tokens[id], token, id);
    tokens[id] = token;
  }
  std::vector<Vocabulary::Merge> merges;
  if (!model.contains("merges"))
    return Vocabulary::build(tokens, merges);
  std::unordered_map<std::string_view, uint32_t> ids;
  ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id)
    ids.emplace(tokens[id], uint32_t(id));
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

//===----------------------------------------------------------------------===//
// BPE
//===----------------------------------------------------------------------===//

/// Joins the pair of lowest rank, leftmost first, until none is left:
/// O(n log n) with a queue of candidate pairs over a linked list.
static std::vector<int32_t> merge(const Vocabulary &vocabulary,
                                  const std::vector<int32_t> &symbols) {
  struct Node {
    int32_t id, previous, next;
  };
  struct Candidate {
    int32_t rank, position, left, right, result;
    bool operator<(const Candidate &other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  if (symbols.size() < 2)
    return symbols;
  std::vector<Node> nodes;
  for (int32_t id : symbols)
    nodes.push_back({id, int32_t(nodes.size()) - 1, int32_t(nodes.size()) + 1});
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

/// Words are bytes, each written as a printable character.
class ByteBpe : public WordModel {
public:
  ByteBpe(const json &model, const Vocabulary &vocabulary)
      : vocabulary(vocabulary),
        ignoreMerges(model.value("ignore_merges", false)) {
    if (const json end = model.value("end_of_word_suffix", json());
        end.is_string())
      suffix = end;
    if (const json name = model.value("unk_token", json()); name.is_string())
      unknown = vocabulary.find(name.get<std::string>()).value_or(-1);
    fuseUnknown = model.value("fuse_unk", false);
    for (size_t byte = 0; byte < 256; ++byte) {
      const std::string &symbol = byteSymbols()[byte];
      symbolBytes[symbol] = uint8_t(byte);
      ids[byte] = vocabulary.find(symbol).value_or(-1);
      lastIds[byte] = vocabulary.find(symbol + suffix).value_or(-1);
    }
  }

  std::vector<int32_t> encode(std::string_view word) const override {
    if (ignoreMerges) {
      std::string symbols;
      for (char c : word)
        symbols += byteSymbols()[uint8_t(c)];
      if (auto id = vocabulary.find(symbols + suffix))
        return {*id};
    }
    std::vector<int32_t> symbols;
    for (size_t i = 0; i < word.size(); ++i) {
      const auto &table = i + 1 == word.size() ? lastIds : ids;
      int32_t id = table[uint8_t(word[i])];
      if (id < 0)
        id = unknown;
      const bool again = fuseUnknown && id == unknown && !symbols.empty() &&
                         symbols.back() == unknown;
      if (id >= 0 && !again)
        symbols.push_back(id);
    }
    return merge(vocabulary, symbols);
  }

  std::string decode(int32_t id) const override {
    std::string_view text = vocabulary.text(id);
    const bool ends = !suffix.empty() && text.ends_with(suffix);
    if (ends)
      text.remove_suffix(suffix.size());
    std::string out;
    for (size_t i = 0; i < text.size();) {
      size_t length = uint8_t(text[i]) < 0x80 ? 1 : 2;
      auto it = symbolBytes.find(std::string(text.substr(i, length)));
      if (it != symbolBytes.end())
        out += char(it->second);
      i += length;
    }
    return ends ? out + ' ' : out;
  }

private:
  const Vocabulary &vocabulary;
  bool ignoreMerges, fuseUnknown = false;
  int32_t unknown = -1; ///< for bytes that the vocabulary lacks; -1: left out
  std::string suffix;   ///< of the last symbol of a word
  std::array<int32_t, 256> ids, lastIds{}; ///< -1: not in the vocabulary
  std::unordered_map<std::string, uint8_t> symbolBytes;
};

/// SentencePiece's blank.
constexpr std::string_view kBlank = "\xE2\x96\x81";

/// Words are characters; one that the vocabulary lacks is written in bytes.
class CharacterBpe : public WordModel {
public:
  CharacterBpe(const json &model, const Vocabulary &vocabulary)
      : vocabulary(vocabulary),
        ignoreMerges(model.value("ignore_merges", false)) {
    for (int byte = 0; byte < 256; ++byte) {
      const auto id = vocabulary.find(fmt::format("<0x{:02X}>", byte));
      if (!id)
        throw Error("tokenizer.json: falls back to bytes, and <0x{:02X}> is no "
                    "token",
                    byte);
      byteIds[size_t(byte)] = *id;
      bytes[*id] = char(byte);
    }
  }

  std::vector<int32_t> encode(std::string_view word) const override {
    if (ignoreMerges)
      if (auto id = vocabulary.find(word))
        return {*id};
    std::vector<int32_t> symbols;
    forEachCharacter(word, [&](int32_t, std::string_view character) {
      if (auto id = vocabulary.find(character))
        symbols.push_back(*id);
      else
        for (char c : character)
          symbols.push_back(byteIds[uint8_t(c)]);
    });
    return merge(vocabulary, symbols);
  }

  std::string decode(int32_t id) const override {
    if (auto byte = bytes.find(id); byte != bytes.end())
      return {byte->second};
    std::string out;
    std::string_view text = vocabulary.text(id);
    for (size_t at; (at = text.find(kBlank)) != text.npos;
         text.remove_prefix(at + kBlank.size())) {
      out += text.substr(0, at);
      out += ' ';
    }
    return out += text;
  }

private:
  const Vocabulary &vocabulary;
  bool ignoreMerges;
  std::array<int32_t, 256> byteIds;
  std::unordered_map<int32_t, char> bytes;
};

/// The longest token that begins the rest of a word, again and again
/// (arXiv:1609.08144); all of a word is unknown if a part of it is.
class WordPiece : public WordModel {
public:
  WordPiece(const json &model, const Vocabulary &vocabulary)
      : vocabulary(vocabulary),
        prefix(model.value("continuing_subword_prefix", "##")),
        mostCharacters(size_t(
            jsonInteger(model.value("max_input_chars_per_word", json(100)),
                        "tokenizer.json: max_input_chars_per_word"))) {
    const std::string name = model.value("unk_token", "[UNK]");
    const auto id = vocabulary.find(name);
    if (!id)
      throw Error("tokenizer.json: the unknown token '{}' is no token", name);
    unknown = *id;
  }

  std::vector<int32_t> encode(std::string_view word) const override {
    std::vector<size_t> ends; // of characters
    forEachCharacter(word, [&](int32_t, std::string_view character) {
      ends.push_back((ends.empty() ? 0 : ends.back()) + character.size());
    });
    if (ends.size() > mostCharacters)
      return {unknown};
    std::vector<int32_t> ids;
    for (size_t first = 0, next = 0; next < ends.size();) {
      std::optional<int32_t> found;
      size_t last = ends.size();
      for (; last > next && !found; --last) {
        std::string piece(word.substr(first, ends[last - 1] - first));
        found = vocabulary.find(first > 0 ? prefix + piece : piece);
      }
      if (!found)
        return {unknown};
      ids.push_back(*found);
      next = last + 1;
      first = ends[last];
    }
    return ids;
  }

  std::string decode(int32_t id) const override {
    std::string_view text = vocabulary.text(id);
    if (text.starts_with(prefix))
      return std::string(text.substr(prefix.size()));
    return ' ' + std::string(text);
  }

private:
  const Vocabulary &vocabulary;
  std::string prefix; ///< of tokens inside a word
  size_t mostCharacters;
  int32_t unknown;
};
} // namespace

std::unique_ptr<WordModel>
isthmus::rt::makeWordModel(const json &model, const Vocabulary &vocabulary) {
  const std::string type = model.value("type", "BPE");
  if (type == "WordPiece")
    return std::make_unique<WordPiece>(model, vocabulary);
  if (type != "BPE")
    throw Error("tokenizer.json: model '{}' is not supported; BPE and "
                "WordPiece are",
                type);
  if (model.value("byte_fallback", false))
    return std::make_unique<CharacterBpe>(model, vocabulary);
  return std::make_unique<ByteBpe>(model, vocabulary);
}
