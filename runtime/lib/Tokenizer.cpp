//===- Tokenizer.cpp - tokenizers as Hugging Face defines them ------------===//
#include "isthmus/runtime/Tokenizer.h"

#include "Normalizer.h"
#include "PreTokenizer.h"
#include "WordModel.h"
#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <nlohmann/json.hpp>
#include <unordered_map>

using namespace isthmus::rt;
using nlohmann::json;

static json parseJson(std::string_view text) {
  try {
    return json::parse(text);
  } catch (const json::exception &error) {
    throw Error("tokenizer.json: {}", error.what());
  }
}

struct Tokenizer::Impl {
  Vocabulary vocabulary;
  std::unique_ptr<WordModel> model;
  size_t tokenCount; ///< ids of tokens and added tokens are below
  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> preTokenizers;

  struct Added {
    std::string content;
    int32_t id;
    bool special;
  };
  std::vector<Added> added; ///< longest first
  std::array<bool, 256> addedStart{};
  std::unordered_map<int32_t, size_t> addedById;

  /// Words come again and again: their ids are remembered.
  mutable std::mutex cacheMutex;
  mutable std::unordered_map<std::string, std::vector<int32_t>> cache;
  static constexpr size_t kCacheEntries = 20000, kCacheWord = 64;

  /// Throws json::exception too.
  Impl(const json &root, std::span<const std::byte> vocabularyBytes)
      : vocabulary(vocabularyBytes), tokenCount(vocabulary.size()) {
    model = makeWordModel(root.at("model"), vocabulary);
    readAdded(root);
    normalizers = parseNormalizers(root.value("normalizer", json()));
    const json steps = root.value("pre_tokenizer", json());
    if (steps.is_null() && !root.at("model").value("byte_fallback", false))
      throw Error("tokenizer.json: has no pre-tokenizer; that is supported "
                  "for models with byte fallback only");
    preTokenizers = parsePreTokenizers(steps);
  }

  void readAdded(const json &root) {
    if (!root.contains("added_tokens"))
      return;
    for (const json &token : root.at("added_tokens")) {
      Added entry{token.at("content"), checkedTokenId(token.at("id")),
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

  std::string normalize(std::string_view unchecked) const {
    std::string text = validUtf8(unchecked);
    for (const Normalizer &step : normalizers)
      text = step(std::move(text));
    return text;
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
    std::vector<int32_t> ids = model->encode(word);
    out.insert(out.end(), ids.begin(), ids.end());
    if (cached) {
      std::lock_guard lock(cacheMutex);
      if (cache.size() >= kCacheEntries)
        cache.clear();
      cache.emplace(std::move(key), std::move(ids));
    }
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
  return impl->model->decode(id);
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
