// libFuzzer target: damage done to a good vocabulary, five bytes each (place
// and value; the place of all ones cuts it off).
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Tokenizer.h"

#include <cstring>

using namespace isthmus::rt;

static const char *const kTokenizer = R"({
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4},
            "merges": ["a b", "ab c"]},
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}})";

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const CompiledTokenizer good = compileTokenizer(kTokenizer);
  // A copy of exactly the size, so that the sanitizer sees every step outside.
  std::vector<std::byte> vocabulary = good.vocabulary;
  for (; size >= 5; data += 5, size -= 5) {
    uint32_t place;
    std::memcpy(&place, data, 4);
    if (place == UINT32_MAX)
      vocabulary.resize(std::min<size_t>(data[4], vocabulary.size()));
    else if (!vocabulary.empty())
      vocabulary[place % vocabulary.size()] = std::byte(data[4]);
  }
  try {
    Tokenizer tokenizer(good.config, vocabulary);
    tokenizer.decode(tokenizer.encode("abcabcab aab"));
    for (int32_t id = -1; id < 8; ++id)
      tokenizer.decode(id);
  } catch (const Error &) {
  }
  return 0;
}
