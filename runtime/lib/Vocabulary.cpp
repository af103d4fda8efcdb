//===- Vocabulary.cpp - tokens and merges as they lie in a bundle ---------===//
#include "Vocabulary.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <bit>
#include <cstring>

using namespace isthmus::rt;

/// Slots for `count` entries: at least half of them stay empty.
static uint32_t slotBits(size_t count) {
  return uint32_t(std::bit_width(2 * count + 1));
}

uint32_t Vocabulary::hash(std::string_view token, uint32_t bits) {
  uint64_t h = 0xcbf29ce484222325; // FNV-1a
  for (char c : token)
    h = (h ^ uint8_t(c)) * 0x100000001b3;
  return uint32_t((h * 0x9e3779b97f4a7c15) >> (64 - bits));
}

uint32_t Vocabulary::hash(uint32_t left, uint32_t right, uint32_t bits) {
  uint64_t key = uint64_t(left) << 32 | right;
  key = (key ^ key >> 32) * 0x9e3779b97f4a7c15;
  return uint32_t((key ^ key >> 29) * 0xbf58476d1ce4e5b9 >> (64 - bits));
}

std::vector<std::byte> Vocabulary::build(std::span<const std::string> tokens,
                                         std::span<const Merge> merges) {
  std::vector<uint32_t> offsets(1, 0);
  std::string text;
  for (const std::string &token : tokens) {
    text += token;
    if (text.size() > UINT32_MAX)
      throw Error("a vocabulary of more than 4 GiB of text");
    offsets.push_back(uint32_t(text.size()));
  }
  Header header{{},
                uint32_t(tokens.size()),
                slotBits(tokens.size()),
                uint32_t(merges.size()),
                slotBits(merges.size()),
                uint32_t(text.size()),
                0};
  std::copy(kMagic.begin(), kMagic.end(), header.magic);

  std::vector<uint32_t> tokenSlots(size_t(1) << header.tokenBits, 0);
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty())
      continue;
    uint32_t slot = hash(tokens[id], header.tokenBits);
    while (tokenSlots[slot])
      slot = (slot + 1) & uint32_t(tokenSlots.size() - 1);
    tokenSlots[slot] = id + 1;
  }
  std::vector<uint32_t> mergeSlots(size_t(1) << header.mergeBits, 0);
  for (uint32_t i = 0; i < merges.size(); ++i) {
    uint32_t slot = hash(merges[i].left, merges[i].right, header.mergeBits);
    auto same = [&](uint32_t entry) {
      const Merge &other = merges[entry - 1];
      return other.left == merges[i].left && other.right == merges[i].right;
    };
    while (mergeSlots[slot] && !same(mergeSlots[slot]))
      slot = (slot + 1) & uint32_t(mergeSlots.size() - 1);
    mergeSlots[slot] = i + 1;
  }

  std::vector<std::byte> out;
  auto append = [&](const void *data, size_t bytes) {
    const auto *from = static_cast<const std::byte *>(data);
    out.insert(out.end(), from, from + bytes);
  };
  append(&header, sizeof(header));
  append(offsets.data(), offsets.size() * 4);
  append(tokenSlots.data(), tokenSlots.size() * 4);
  append(merges.data(), merges.size_bytes());
  append(mergeSlots.data(), mergeSlots.size() * 4);
  append(text.data(), text.size());
  return out;
}

Vocabulary::Vocabulary(std::span<const std::byte> bytes) {
  auto need = [](bool condition, const char *what) {
    if (!condition)
      throw Error("vocabulary: {}; compile the model again", what);
  };
  need(bytes.size() >= sizeof(Header), "the header is cut off");
  std::memcpy(&header, bytes.data(), sizeof(Header));
  need(std::string_view(header.magic, kMagic.size()) == kMagic,
       "not a vocabulary of this version");
  constexpr uint32_t kMost = 1u << 24; // ids stay far below 2^31
  need(header.tokens <= kMost && header.merges <= kMost,
       "more than 2^24 tokens or merges");
  need(header.tokenBits == slotBits(header.tokens) &&
           header.mergeBits == slotBits(header.merges),
       "a hash table has an odd size");
  size_t at = sizeof(Header);
  auto section = [&]<typename T>(std::span<const T> &out, size_t count) {
    need(count <= (bytes.size() - at) / sizeof(T), "a table is cut off");
    out = {reinterpret_cast<const T *>(bytes.data() + at), count};
    at += count * sizeof(T);
  };
  need(reinterpret_cast<uintptr_t>(bytes.data()) % alignof(uint32_t) == 0,
       "not aligned");
  section(textOffsets, size_t(header.tokens) + 1);
  section(tokenSlots, size_t(1) << header.tokenBits);
  section(merges, header.merges);
  section(mergeSlots, size_t(1) << header.mergeBits);
  need(bytes.size() - at == header.textBytes, "the text has another length");
  allText = {reinterpret_cast<const char *>(bytes.data() + at),
             header.textBytes};

  need(textOffsets.front() == 0 && textOffsets.back() == header.textBytes &&
           std::is_sorted(textOffsets.begin(), textOffsets.end()),
       "the places of the tokens are not in order");
  // An empty slot ends a search: there must be one.
  auto check = [&](std::span<const uint32_t> slots, uint32_t entries) {
    need(std::all_of(slots.begin(), slots.end(),
                     [&](uint32_t entry) { return entry <= entries; }),
         "a hash table points outside");
    need(std::find(slots.begin(), slots.end(), 0u) != slots.end(),
         "a hash table is full");
  };
  check(tokenSlots, header.tokens);
  check(mergeSlots, header.merges);
  for (const Merge &merge : merges)
    need(std::max({merge.left, merge.right, merge.result}) < header.tokens,
         "a merge names no token");
}

std::string_view Vocabulary::text(int32_t id) const {
  if (id < 0 || uint32_t(id) >= header.tokens)
    return {};
  return allText.substr(textOffsets[size_t(id)],
                        textOffsets[size_t(id) + 1] - textOffsets[size_t(id)]);
}

std::optional<int32_t> Vocabulary::find(std::string_view token) const {
  uint32_t slot = hash(token, header.tokenBits);
  while (uint32_t entry = tokenSlots[slot]) {
    if (text(int32_t(entry - 1)) == token)
      return int32_t(entry - 1);
    slot = (slot + 1) & uint32_t(tokenSlots.size() - 1);
  }
  return std::nullopt;
}

std::optional<Vocabulary::Ranked> Vocabulary::merge(int32_t left,
                                                    int32_t right) const {
  uint32_t slot = hash(uint32_t(left), uint32_t(right), header.mergeBits);
  while (uint32_t entry = mergeSlots[slot]) {
    const Merge &candidate = merges[entry - 1];
    if (candidate.left == uint32_t(left) && candidate.right == uint32_t(right))
      return Ranked{int32_t(entry - 1), int32_t(candidate.result)};
    slot = (slot + 1) & uint32_t(mergeSlots.size() - 1);
  }
  return std::nullopt;
}
