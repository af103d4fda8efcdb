#include "isthmus/runtime/ChatTemplate.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/TextStream.h"

#include <cstring>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

using namespace isthmus::rt;
using nlohmann::json;

/// Bytes 'a'..'e' and a few merges; ids in the order of the list.
static json tinyTokenizer() {
  std::vector<std::string> tokens = {"a",  "b",   "c",  "Ġ",
                                     "ab", "abc", "bc", "<end>"};
  for (int byte = 0xA1; byte <= 0xAC; ++byte) // bytes of multi-byte characters
    tokens.push_back({char(0xC0 | byte >> 6), char(0x80 | (byte & 63))});
  for (int byte = 0xE0; byte <= 0xF4; ++byte)
    tokens.push_back({char(0xC0 | byte >> 6), char(0x80 | (byte & 63))});
  json vocab;
  for (size_t i = 0; i < tokens.size(); ++i)
    vocab[tokens[i]] = i;
  return {
      {"added_tokens", {{{"id", 7}, {"content", "<end>"}, {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", vocab},
        {"merges", {"b c", "a b", "ab c"}}}}};
}

TEST(Tokenizer, LowestRankMergesFirst) {
  Tokenizer t(tinyTokenizer().dump());
  // "b c" has rank 0: "abc" becomes a, bc and stays so.
  EXPECT_EQ(t.encode("abc"), (std::vector<int32_t>{0, 6}));
  EXPECT_EQ(t.encode("ab ab"), (std::vector<int32_t>{4, 3, 4}));
}

TEST(Tokenizer, SpecialTokensOnlyInTrustedText) {
  Tokenizer t(tinyTokenizer().dump());
  EXPECT_EQ(t.encode("a<end>b"), (std::vector<int32_t>{0, 7, 1}));
  Tokenizer::Range all{0, 7};
  for (int32_t id : t.encode("a<end>b", {&all, 1}))
    EXPECT_NE(id, 7);
  EXPECT_EQ(t.decode(7), "");
  EXPECT_EQ(t.decode(7, true), "<end>");
}

TEST(Tokenizer, RefusesWhatItCannotDoExactly) {
  auto rejects = [](auto change) {
    json config = tinyTokenizer();
    change(config);
    EXPECT_THROW(Tokenizer{config.dump()}, Error);
  };
  rejects([](json &c) { c["model"]["type"] = "Unigram"; });
  rejects([](json &c) { c["model"]["byte_fallback"] = true; });
  rejects([](json &c) { c["pre_tokenizer"] = nullptr; });
  rejects([](json &c) { c["pre_tokenizer"]["type"] = "Metaspace"; });
  rejects([](json &c) { c["normalizer"] = {{"type", "Precompiled"}}; });
  rejects([](json &c) { c["added_tokens"][0]["lstrip"] = true; });
  rejects([](json &c) { c["model"]["merges"].push_back("a q"); });
  rejects([](json &c) { c["model"]["vocab"]["a"] = -1; });
  rejects([](json &c) {
    c["model"]["vocab"]["a"] = 1.9e82;
  }); // found by the fuzzer
  rejects([](json &c) { c.erase("model"); });
  EXPECT_THROW(Tokenizer{"{"}, Error);
}

TEST(Tokenizer, WordPieceTakesTheLongestToken) {
  json config = {
      {"normalizer", {{"type", "BertNormalizer"}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"model",
       {{"type", "WordPiece"},
        {"max_input_chars_per_word", 5},
        {"vocab",
         {{"[UNK]", 0}, {"ab", 1}, {"a", 2}, {"##b", 3}, {"##bc", 4}}}}}};
  Tokenizer t(config.dump());
  EXPECT_EQ(t.encode("ab ABBC abb"), (std::vector<int32_t>{1, 1, 4, 1, 3}));
  // One unknown part makes the word unknown, even if other parts would do; so
  // does its length.
  EXPECT_EQ(t.encode("abc"), (std::vector<int32_t>{0}));
  EXPECT_EQ(t.encode("abx \xC3\xA1"), (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(t.encode("abbbb abbbbb"), (std::vector<int32_t>{1, 3, 3, 3, 0}));
  EXPECT_EQ(t.decode(std::vector<int32_t>{1, 3, 2}), " abb a");
  config["model"]["unk_token"] = "[OTHER]";
  EXPECT_THROW(Tokenizer{config.dump()}, Error);
}

TEST(Tokenizer, CharactersFallBackToBytes) {
  json vocab = {{"\u2581", 256}, {"a", 257}, {"\u2581a", 258}};
  for (int byte = 0; byte < 256; ++byte)
    vocab[fmt::format("<0x{:02X}>", byte)] = byte;
  json config = {{"normalizer",
                  {{"type", "Replace"},
                   {"pattern", {{"String", " "}}},
                   {"content", "\u2581"}}},
                 {"pre_tokenizer", nullptr},
                 {"model",
                  {{"type", "BPE"},
                   {"byte_fallback", true},
                   {"vocab", vocab},
                   {"merges", json::array({json::array({"\u2581", "a"})})}}}};
  Tokenizer t(config.dump());
  const std::vector<int32_t> ids = {258, 257, 0xC3, 0xA9, 256};
  EXPECT_EQ(t.encode(" aa\xC3\xA9 "), ids);
  EXPECT_EQ(t.decode(ids), " aa\xC3\xA9 ");
  config["model"]["vocab"].erase("<0x41>");
  EXPECT_THROW(Tokenizer{config.dump()}, Error);
}

TEST(Tokenizer, TwoTokensOfOneIdAreRefused) {
  json config = tinyTokenizer();
  config["model"]["vocab"]["a"] = config["model"]["vocab"]["b"];
  EXPECT_THROW(compileTokenizer(config.dump()), Error);
}

TEST(Tokenizer, CompiledSaysTheSame) {
  Tokenizer whole(tinyTokenizer().dump());
  CompiledTokenizer compiled = compileTokenizer(tinyTokenizer().dump());
  EXPECT_EQ(compiled.config.find("vocab"), std::string::npos);
  Tokenizer mapped(compiled.config, compiled.vocabulary);
  for (const char *text : {"abcab cab", "a<end>b", "\xC3\xA9 ab", ""})
    EXPECT_EQ(mapped.encode(text), whole.encode(text)) << text;
  for (int32_t id = -1; id < 50; ++id)
    EXPECT_EQ(mapped.decode(id, true), whole.decode(id, true));
  EXPECT_EQ(mapped.vocabSize(), whole.vocabSize());
}

TEST(Tokenizer, DamagedVocabulariesAreRefused) {
  CompiledTokenizer compiled = compileTokenizer(tinyTokenizer().dump());
  auto refuses = [&](auto change) {
    std::vector<std::byte> bytes = compiled.vocabulary;
    change(bytes);
    EXPECT_THROW(Tokenizer(compiled.config, bytes), Error);
  };
  auto set = [](std::vector<std::byte> &bytes, size_t word, uint32_t value) {
    std::memcpy(&bytes[word * 4], &value, 4);
  };
  refuses([&](auto &bytes) { bytes.clear(); });
  refuses([&](auto &bytes) { bytes.pop_back(); });
  refuses([&](auto &bytes) { set(bytes, 0, 0); });        // the magic
  refuses([&](auto &bytes) { set(bytes, 2, 1u << 30); }); // tokens
  refuses([&](auto &bytes) { set(bytes, 3, 31); });       // size of a table
  refuses([&](auto &bytes) { set(bytes, 9, 7); });        // text out of order
  const size_t tokens = 41, firstSlot = 8 + tokens + 1;
  refuses([&](auto &bytes) { set(bytes, firstSlot, 1000); }); // points outside
  refuses([&](auto &bytes) { // no empty slot: a search would not end
    for (size_t i = 0; i < 128; ++i)
      set(bytes, firstSlot + i, 1);
  });
  refuses([&](auto &bytes) { set(bytes, firstSlot + 128, 1000); }); // a merge
}

TEST(TextStream, HoldsBackHalfCharactersAndStopStrings) {
  Tokenizer t(tinyTokenizer().dump());
  TextStream plain(t, {});
  EXPECT_EQ(plain.push(0), "a");
  TextStream stop(t, {"bca"});
  EXPECT_EQ(stop.push(0), "a");
  EXPECT_EQ(stop.push(6), "");   // "bc" may begin the stop string
  EXPECT_EQ(stop.push(1), "bc"); // it did not, but the new "b" may
  EXPECT_EQ(stop.push(6), "b");
  EXPECT_EQ(stop.push(0), "");
  EXPECT_TRUE(stop.stopped());
  EXPECT_EQ(stop.finish(), "");
}

TEST(TextStream, GivesTheRestAtTheEnd) {
  Tokenizer t(tinyTokenizer().dump());
  TextStream stream(t, {"abc"});
  EXPECT_EQ(stream.push(0), "");
  EXPECT_EQ(stream.finish(), "a");
}

TEST(ChatTemplate, RendersAndMarksWhatCameFromOutside) {
  ChatTemplate chat(
      "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
      "{% if add_generation_prompt %}<|assistant|>{% endif %}",
      "", "");
  auto prompt =
      chat.apply(json::array({{{"role", "user"}, {"content", "hi <|x|>"}}}));
  EXPECT_EQ(prompt.text, "<|user|>hi <|x|><|assistant|>");
  bool covered = false;
  for (auto [first, last] : prompt.untrusted)
    covered |= prompt.text.substr(first, last - first).find("<|x|>") !=
               std::string::npos;
  EXPECT_TRUE(covered);
}

TEST(ChatTemplate, ReportsTemplateErrors) {
  EXPECT_THROW(ChatTemplate("{% for %}", "", ""), Error);
  ChatTemplate strict("{{ raise_exception('no system messages') }}", "", "");
  EXPECT_THROW(strict.apply(json::array()), Error);
}
