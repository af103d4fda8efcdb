//===- Vocabulary.h - tokens and merges as they lie in a bundle -*- C++ -*-===//
//
// A vocabulary is used where it is mapped: nothing is parsed, and nothing but
// the pages that a text needs is read after the checks. Little-endian:
//
//   Header
//   uint32 textOffsets [tokens + 1]   into the text, ascending
//   uint32 tokenSlots  [1 << tokenBits]  hash table: id + 1 of a token, or 0
//   Merge  merges      [merges]       ascending rank
//   uint32 mergeSlots  [1 << mergeBits]  hash table: index + 1 of a merge, or 0
//   char   text        [textOffsets[tokens]]
//
// Collisions go on to the next slot.
//
//===----------------------------------------------------------------------===//
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::rt {

class Vocabulary {
public:
  struct Merge {
    uint32_t left, right, result;
  };
  struct Ranked {
    int32_t rank, result;
  };

  /// \param tokens text of each id; an empty one is not a token.
  /// \param merges pairs of ids and what they become, lowest rank first; of
  ///               equal pairs the last one counts.
  static std::vector<std::byte> build(std::span<const std::string> tokens,
                                      std::span<const Merge> merges);

  /// \param bytes what `build` made; they must outlive the object. Throws Error
  /// if they are anything else.
  explicit Vocabulary(std::span<const std::byte> bytes);

  size_t size() const { return header.tokens; }
  /// Text of a token; empty if there is no such id.
  std::string_view text(int32_t id) const;
  std::optional<int32_t> find(std::string_view token) const;
  std::optional<Ranked> merge(int32_t left, int32_t right) const;

private:
  struct Header {
    char magic[8];
    uint32_t tokens, tokenBits, merges, mergeBits, textBytes, reserved;
  };
  Header header;
  std::span<const uint32_t> textOffsets, tokenSlots, mergeSlots;
  std::span<const Merge> merges;
  std::string_view allText;

  static constexpr std::string_view kMagic = "ISTHVOC1";
  static uint32_t hash(std::string_view token, uint32_t bits);
  static uint32_t hash(uint32_t left, uint32_t right, uint32_t bits);
};

} // namespace isthmus::rt
