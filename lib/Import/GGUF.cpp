//===- GGUF.cpp - reads GGUF files ----------------------------------------===//
//
// Specification: github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
//
//===----------------------------------------------------------------------===//
#include "isthmus/Import/Checkpoint.h"
#include "isthmus/Import/TokenizerJson.h"
#include "isthmus/runtime/Error.h"

#include <cstring>
#include <set>
#include <variant>

using namespace isthmus;
using namespace isthmus::import;
using rt::Error;

namespace {
enum class ValueType : uint32_t {
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  F32,
  Bool,
  String,
  Array,
  U64,
  I64,
  F64
};

struct Value {
  std::variant<int64_t, double, std::string, std::vector<int64_t>,
               std::vector<double>, std::vector<std::string>>
      data;
};

/// Reads little-endian values; every read is checked against the end.
class Cursor {
public:
  Cursor(const rt::MappedFile &file) : file(file) {}

  template <typename T> T read(std::string_view what) {
    T value;
    std::memcpy(&value, file.slice(at, sizeof(T), what).data(), sizeof(T));
    at += sizeof(T);
    return value;
  }

  std::string string(std::string_view what) {
    auto length = read<uint64_t>(what);
    auto bytes = file.slice(at, length, what);
    at += length;
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
  }

  uint64_t offset() const { return at; }
  uint64_t left() const { return file.bytes().size() - at; }

private:
  const rt::MappedFile &file;
  uint64_t at = 0;
};

class GGUFReader {
public:
  explicit GGUFReader(const std::filesystem::path &path)
      : where(path.string()), file(path), cursor(file) {}

  Checkpoint read() {
    if (cursor.left() < 4 || cursor.read<uint32_t>("magic") != 0x46554747)
      throw Error("{}: not a GGUF file (no magic 'GGUF')", where);
    auto version = cursor.read<uint32_t>("version");
    if (version != 2 && version != 3)
      throw Error("{}: GGUF version {} is not supported; 2 and 3 are", where,
                  version);
    auto tensorCount = cursor.read<uint64_t>("tensor count");
    auto valueCount = cursor.read<uint64_t>("metadata count");
    // The smallest tensor entry has 24 bytes, the smallest value 13.
    if (tensorCount > cursor.left() / 24 || valueCount > cursor.left() / 13)
      throw Error("{}: {} tensors and {} metadata entries cannot fit the file",
                  where, tensorCount, valueCount);
    for (uint64_t i = 0; i < valueCount; ++i)
      readMetadata();
    readTensors(tensorCount);
    readSettings();
    readTokenizer();
    return std::move(result);
  }

private:
  std::string where;
  rt::MappedFile file;
  Cursor cursor;
  std::map<std::string, Value> metadata;
  Checkpoint result;
  int64_t vocabulary = 0;

  //===--- Metadata -------------------------------------------------------===//

  std::variant<int64_t, double> number(ValueType type, const std::string &key) {
    switch (type) {
    case ValueType::U8:
      return int64_t(cursor.read<uint8_t>(key));
    case ValueType::I8:
      return int64_t(cursor.read<int8_t>(key));
    case ValueType::U16:
      return int64_t(cursor.read<uint16_t>(key));
    case ValueType::I16:
      return int64_t(cursor.read<int16_t>(key));
    case ValueType::U32:
      return int64_t(cursor.read<uint32_t>(key));
    case ValueType::I32:
      return int64_t(cursor.read<int32_t>(key));
    case ValueType::F32:
      return double(cursor.read<float>(key));
    case ValueType::Bool:
      return int64_t(cursor.read<uint8_t>(key) != 0);
    case ValueType::U64:
      return int64_t(cursor.read<uint64_t>(key));
    case ValueType::I64:
      return cursor.read<int64_t>(key);
    case ValueType::F64:
      return cursor.read<double>(key);
    default:
      throw Error("{}: metadata '{}' has unknown type {}", where, key,
                  uint32_t(type));
    }
  }

  void readMetadata() {
    std::string key = cursor.string("metadata key");
    auto type = ValueType(cursor.read<uint32_t>(key));
    Value value;
    if (type == ValueType::String) {
      value.data = cursor.string(key);
    } else if (type == ValueType::Array) {
      readArray(key, value);
    } else {
      std::visit([&](auto v) { value.data = v; }, number(type, key));
    }
    if (!metadata.emplace(key, std::move(value)).second)
      throw Error("{}: metadata '{}' appears twice", where, key);
  }

  void readArray(const std::string &key, Value &value) {
    auto type = ValueType(cursor.read<uint32_t>(key));
    auto count = cursor.read<uint64_t>(key);
    if (count > cursor.left())
      throw Error("{}: array '{}' of {} entries cannot fit the file", where,
                  key, count);
    if (type == ValueType::String) {
      auto &strings = value.data.emplace<std::vector<std::string>>();
      for (uint64_t i = 0; i < count; ++i)
        strings.push_back(cursor.string(key));
    } else if (type == ValueType::F32 || type == ValueType::F64) {
      auto &numbers = value.data.emplace<std::vector<double>>();
      for (uint64_t i = 0; i < count; ++i)
        numbers.push_back(std::get<double>(number(type, key)));
    } else {
      auto &numbers = value.data.emplace<std::vector<int64_t>>();
      for (uint64_t i = 0; i < count; ++i)
        numbers.push_back(std::get<int64_t>(number(type, key)));
    }
  }

  template <typename T> const T *find(const std::string &key) const {
    auto it = metadata.find(key);
    if (it == metadata.end())
      return nullptr;
    const T *value = std::get_if<T>(&it->second.data);
    if (!value)
      throw Error("{}: metadata '{}' has the wrong type", where, key);
    return value;
  }

  template <typename T> const T &get(const std::string &key) const {
    const T *value = find<T>(key);
    if (!value)
      throw Error("{}: metadata '{}' is missing", where, key);
    return *value;
  }

  //===--- Tensors --------------------------------------------------------===//

  DType dtypeOf(uint32_t type, const std::string &name) const {
    switch (type) {
    case 0:
      return DType::F32;
    case 1:
      return DType::F16;
    case 2:
      return DType::Q4_0;
    case 3:
      return DType::Q4_1;
    case 6:
      return DType::Q5_0;
    case 7:
      return DType::Q5_1;
    case 8:
      return DType::Q8_0;
    case 12:
      return DType::Q4_K;
    case 13:
      return DType::Q5_K;
    case 14:
      return DType::Q6_K;
    case 30:
      return DType::BF16;
    default:
      throw Error("{}: tensor '{}' has ggml type {}, which is not supported; "
                  "re-quantise it to F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, "
                  "Q5_1, Q4_K, Q5_K or Q6_K",
                  where, name, type);
    }
  }

  void readTensors(uint64_t count) {
    struct Entry {
      std::string name;
      std::vector<int64_t> shape;
      DType dtype;
      uint64_t offset;
    };
    std::vector<Entry> entries;
    for (uint64_t i = 0; i < count; ++i) {
      Entry entry;
      entry.name = cursor.string("tensor name");
      auto rank = cursor.read<uint32_t>("tensor rank");
      if (rank == 0 || rank > 4)
        throw Error("{}: tensor '{}' has rank {}", where, entry.name, rank);
      for (uint32_t d = 0; d < rank; ++d)
        entry.shape.insert(entry.shape.begin(),
                           int64_t(cursor.read<uint64_t>("tensor shape")));
      entry.dtype = dtypeOf(cursor.read<uint32_t>("tensor type"), entry.name);
      entry.offset = cursor.read<uint64_t>("tensor offset");
      entries.push_back(std::move(entry));
    }
    uint64_t alignment = 32;
    if (const int64_t *value = find<int64_t>("general.alignment"))
      alignment = uint64_t(*value);
    if (alignment == 0 || alignment > (1 << 20) ||
        (alignment & (alignment - 1)) != 0)
      throw Error("{}: general.alignment is {}; expected a power of two", where,
                  alignment);
    uint64_t data = (cursor.offset() + alignment - 1) & ~(alignment - 1);
    for (Entry &entry : entries) {
      std::string place = where + ": tensor '" + entry.name + "'";
      uint64_t bytes = checkedBytes(place, entry.shape, entry.dtype);
      uint64_t offset = 0;
      if (__builtin_add_overflow(data, entry.offset, &offset))
        throw Error("{}: impossible offset", place);
      (void)file.slice(offset, bytes, "tensor '" + entry.name + "'");
      Tensor tensor{where, offset, bytes, entry.dtype, entry.shape};
      if (!result.tensors.emplace(entry.name, std::move(tensor)).second)
        throw Error("{} appears twice", place);
    }
    rejectOverlaps(where, result.tensors);
  }

  //===--- Configuration and tokenizer ------------------------------------===//

  void readSettings() {
    // The names of Hugging Face's config.json.
    static const std::map<std::string, std::string> names = {
        {"block_count", "num_hidden_layers"},
        {"embedding_length", "hidden_size"},
        {"feed_forward_length", "intermediate_size"},
        {"context_length", "max_position_embeddings"},
        {"attention.head_count", "num_attention_heads"},
        {"attention.head_count_kv", "num_key_value_heads"},
        {"attention.key_length", "head_dim"},
        {"attention.sliding_window", "sliding_window"},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
        {"attention.layer_norm_epsilon", "layer_norm_epsilon"},
        {"rope.freq_base", "rope_theta"},
        {"rope.scaling.type", "rope_scaling.rope_type"},
        {"rope.scaling.factor", "rope_scaling.factor"}};
    result.architecture = get<std::string>("general.architecture");
    if (const auto *name = find<std::string>("general.name"))
      result.name = *name;
    result.isGGUF = true;
    result.settings = Settings(where);
    const std::string prefix = result.architecture + ".";
    for (const auto &[key, value] : metadata) {
      if (!key.starts_with(prefix))
        continue;
      auto known = names.find(key.substr(prefix.size()));
      if (known == names.end())
        continue;
      std::visit(
          [&](const auto &data) { result.settings.set(known->second, data); },
          value.data);
    }
    if (const auto *pooling = find<int64_t>(prefix + "pooling_type")) {
      // As llama.cpp numbers them; its embeddings have length one.
      static const std::map<int64_t, std::string> kinds = {
          {0, "none"}, {1, "mean"}, {2, "cls"}, {3, "last"}, {4, "rank"}};
      auto kind = kinds.find(*pooling);
      result.settings.set("sentence.pooling",
                          kind != kinds.end() ? kind->second : "unknown");
      result.settings.set("sentence.normalize", true);
    }
    if (auto types = result.tensors.find("token_types.weight");
        types != result.tensors.end())
      result.settings.set("type_vocab_size", types->second.shape.front());
    auto table = result.tensors.find("token_embd.weight");
    if (table == result.tensors.end())
      throw Error("{}: tensor 'token_embd.weight' is missing", where);
    vocabulary = table->second.shape.front();
    result.settings.set("vocab_size", vocabulary);
  }

  bool flag(const std::string &key, bool fallback) {
    const auto *value = find<int64_t>(key);
    return value ? *value != 0 : fallback;
  }

  std::string tokenizerJson(const std::string &model,
                            const std::vector<std::string> &tokens,
                            const std::vector<int64_t> &types,
                            int64_t unknown) {
    if (model == "llama")
      return makeSentencePieceJson(
          where, tokens, types,
          get<std::vector<double>>("tokenizer.ggml.scores"),
          flag("tokenizer.ggml.add_space_prefix", true));
    if (model == "bert")
      return makeWordPieceJson(
          where, tokens, types, size_t(unknown),
          flag("tokenizer.ggml.normalizer.lowercase", true));
    const auto *pre = find<std::string>("tokenizer.ggml.pre");
    return makeTokenizerJson(
        where, tokens, types,
        get<std::vector<std::string>>("tokenizer.ggml.merges"),
        pre ? *pre : "gpt-2");
  }

  void readTokenizer() {
    const auto *tokens =
        find<std::vector<std::string>>("tokenizer.ggml.tokens");
    if (!tokens)
      return;
    const auto &model = get<std::string>("tokenizer.ggml.model");
    if (model != "gpt2" && model != "llama" && model != "bert") {
      result.tokenizer.unsupported =
          "tokenizer model '" + model +
          "' is not supported yet; byte-level BPE ('gpt2'), SentencePiece BPE "
          "('llama') and WordPiece ('bert') are";
      return;
    }
    if (int64_t(tokens->size()) > vocabulary)
      throw Error("{}: {} tokens, but the embedding has {} rows", where,
                  tokens->size(), vocabulary);
    const auto *types = find<std::vector<int64_t>>("tokenizer.ggml.token_type");
    if (types && types->size() != tokens->size())
      throw Error("{}: {} token types for {} tokens", where, types->size(),
                  tokens->size());
    auto id = [&](const std::string &key) -> int64_t {
      const auto *value = find<int64_t>(key);
      if (!value)
        return -1;
      if (*value < 0 || *value >= int64_t(tokens->size()))
        throw Error("{}: '{}' is {}, outside the vocabulary", where, key,
                    *value);
      return *value;
    };
    const std::vector<int64_t> none;
    TokenizerFiles &t = result.tokenizer;
    t.json = tokenizerJson(model, *tokens, types ? *types : none,
                           id("tokenizer.ggml.unknown_token_id"));
    t.bos = int32_t(id("tokenizer.ggml.bos_token_id"));
    for (const char *key :
         {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
      if (int64_t eos = id(key); eos >= 0)
        if (t.eos.empty() || t.eos.back() != uint32_t(eos))
          t.eos.push_back(uint32_t(eos));
    // BERT's texts always have both.
    if (t.bos >= 0 && flag("tokenizer.ggml.add_bos_token", model == "bert"))
      t.prefix = {uint32_t(t.bos)};
    const int64_t separator = id("tokenizer.ggml.seperator_token_id"); // sic
    if (separator >= 0 && model == "bert")
      t.suffix = {uint32_t(separator)};
    if (const auto *chat = find<std::string>("tokenizer.chat_template"))
      t.chatTemplate = *chat;
  }
};
} // namespace

Checkpoint import::readGGUF(const std::filesystem::path &path) {
  return GGUFReader(path).read();
}
