//===- Tokenizer.h - tokenizers as Hugging Face defines them ----*- C++ -*-===//
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace isthmus::rt {

/// A `tokenizer.json` in the form that a bundle holds: what is large needs no
/// parsing.
struct CompiledTokenizer {
  std::string config; ///< the JSON without vocabulary and merges
  std::vector<std::byte> vocabulary;
};
/// Throws Error if the JSON is malformed.
CompiledTokenizer compileTokenizer(std::string_view json);

/// A tokenizer from a `tokenizer.json` of Hugging Face's tokenizers: BPE over
/// bytes (GPT-2, CLIP) or over characters (SentencePiece's, with byte
/// fallback), and WordPiece (BERT), with the normalizers and pre-tokenizers
/// that go with them. Gives the same ids as that library; what a post-processor
/// adds is not added.
class Tokenizer {
public:
  /// Throws Error if the JSON is malformed or asks for something unsupported.
  explicit Tokenizer(std::string_view json);
  /// From the two parts of a CompiledTokenizer; `vocabulary` must outlive the
  /// tokenizer. Throws Error likewise, and if the vocabulary is damaged.
  Tokenizer(std::string_view config, std::span<const std::byte> vocabulary);
  ~Tokenizer();
  Tokenizer(Tokenizer &&) noexcept;

  /// A part of the text that came from outside: special tokens are not
  /// recognised where they touch it.
  using Range = std::pair<size_t, size_t>;

  /// Ids of UTF-8 text; invalid bytes become U+FFFD. `untrusted` lists byte
  /// ranges, sorted, in which special tokens are plain text.
  std::vector<int32_t> encode(std::string_view text,
                              std::span<const Range> untrusted = {}) const;

  /// Bytes of one token; special tokens give nothing unless `special`.
  std::string decode(int32_t id, bool special = false) const;
  std::string decode(std::span<const int32_t> ids) const;

  size_t vocabSize() const;
  bool isSpecial(int32_t id) const;

private:
  struct Impl;
  std::vector<std::byte> owned; ///< the vocabulary of a whole JSON
  std::unique_ptr<Impl> impl;
};

} // namespace isthmus::rt
