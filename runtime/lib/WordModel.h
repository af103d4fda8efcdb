//===- WordModel.h - from words to token ids --------------------*- C++ -*-===//
#pragma once

#include "Vocabulary.h"

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::rt {

/// The `model` of a tokenizer.json.
class WordModel {
public:
  virtual ~WordModel() = default;
  /// Ids of a word of valid UTF-8, which is not empty.
  virtual std::vector<int32_t> encode(std::string_view word) const = 0;
  /// The bytes that a token stands for.
  virtual std::string decode(int32_t id) const = 0;
};

/// BPE (arXiv:1508.07909) over bytes, as GPT-2 and CLIP have it, or over
/// characters that fall back to bytes, as SentencePiece does; or WordPiece.
/// `vocabulary` must outlive the model. Throws Error for other models.
std::unique_ptr<WordModel> makeWordModel(const nlohmann::json &model,
                                         const Vocabulary &vocabulary);

/// Tokens and merges of the model, as Vocabulary::build stores them. Throws
/// Error if they contradict each other.
std::vector<std::byte> buildVocabulary(const nlohmann::json &model);

/// A token id in JSON. Throws Error unless it is one.
int32_t checkedTokenId(const nlohmann::json &value);

} // namespace isthmus::rt
