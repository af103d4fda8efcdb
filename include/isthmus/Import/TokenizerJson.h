//===- TokenizerJson.h - a tokenizer.json from GGUF metadata ----*- C++ -*-===//
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace isthmus::import {

/// Writes the `tokenizer.json` (Hugging Face tokenizers) that a byte-level BPE
/// in GGUF stands for, so that bundles know one tokenizer format.
///
/// \param where names the file in errors.
/// \param types ggml token types; 3 (control) and 4 (user defined) are matched
///              in the text before anything else.
/// \param pre   `tokenizer.ggml.pre`, the name of the pre-tokenizer.
std::string makeTokenizerJson(const std::string &where,
                              const std::vector<std::string> &tokens,
                              const std::vector<int64_t> &types,
                              const std::vector<std::string> &merges,
                              const std::string &pre);

/// The same for a SentencePiece BPE in GGUF (`tokenizer.ggml.model` "llama"):
/// characters with byte fallback, blanks as U+2581.
///
/// \param scores of each token; pairs are joined that make the best one.
/// \param addSpacePrefix a text begins with a blank.
std::string makeSentencePieceJson(const std::string &where,
                                  const std::vector<std::string> &tokens,
                                  const std::vector<int64_t> &types,
                                  const std::vector<double> &scores,
                                  bool addSpacePrefix);

/// The same for BERT's WordPiece in GGUF (`tokenizer.ggml.model` "bert").
///
/// \param unknown id of the token for words that are not in the vocabulary.
std::string makeWordPieceJson(const std::string &where,
                              const std::vector<std::string> &tokens,
                              const std::vector<int64_t> &types, size_t unknown,
                              bool lowercase);

} // namespace isthmus::import
