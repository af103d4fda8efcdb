//===- HuggingFace.cpp - reads Hugging Face folders -----------------------===//
#include "isthmus/Import/Checkpoint.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Json.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

using namespace isthmus;
using namespace isthmus::import;
using nlohmann::json;
using rt::Error;
namespace fs = std::filesystem;

/// The file `name` of the folder. A name is never a path, and a link may not
/// lead out of the folder (Hugging Face's cache links to ../../blobs, so links
/// that stay under the folder's repository are what users have: resolve first).
static fs::path fileIn(const fs::path &folder, const std::string &name) {
  if (name.empty() || name == "." || name == ".." ||
      name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos)
    throw Error("{}: '{}' is not a plain file name", folder.string(), name);
  fs::path path = folder / name;
  std::error_code error;
  if (fs::is_symlink(path, error)) {
    fs::path target = fs::weakly_canonical(path, error);
    fs::path root = fs::weakly_canonical(folder, error);
    // .../models--x/snapshots/<revision>/file -> .../models--x/blobs/<digest>
    fs::path blobs = root.parent_path().parent_path() / "blobs";
    if (target.parent_path() != root && target.parent_path() != blobs)
      throw Error("{}: is a link that leaves the model's folder",
                  path.string());
  }
  return path;
}

static std::string readText(const fs::path &path) {
  rt::MappedFile file(path);
  auto bytes = file.bytes();
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

static json readJson(const fs::path &path) {
  try {
    return json::parse(readText(path));
  } catch (const json::exception &error) {
    throw Error("{}: {}", path.string(), error.what());
  }
}

static std::optional<json> readOptionalJson(const fs::path &folder,
                                            const std::string &name) {
  fs::path path = fileIn(folder, name);
  if (!fs::exists(path))
    return std::nullopt;
  return readJson(path);
}

static void readConfig(const fs::path &path, const json &json,
                       Checkpoint &result) {
  const std::string where = path.string();
  Config &c = result.config;
  c.architecture = json.value("model_type", "");
  if (c.architecture != "llama" && c.architecture != "qwen2" &&
      c.architecture != "mistral")
    throw Error("{}: model_type '{}' is not supported; llama, mistral and "
                "qwen2 are",
                where, c.architecture);
  c.name = path.parent_path().filename().string();
  auto integer = [&](const char *key,
                     std::optional<int64_t> fallback = std::nullopt) {
    if (fallback && (!json.contains(key) || json.at(key).is_null()))
      return *fallback;
    return rt::jsonInteger(json.at(key), where + ": " + key);
  };
  c.layers = integer("num_hidden_layers");
  c.hidden = integer("hidden_size");
  c.feedForward = integer("intermediate_size");
  c.vocab = integer("vocab_size");
  c.heads = integer("num_attention_heads");
  c.kvHeads = integer("num_key_value_heads", c.heads);
  if (c.heads <= 0)
    throw Error("{}: num_attention_heads is {}", where, c.heads);
  c.headDim = integer("head_dim", c.hidden / c.heads);
  c.contextLength = integer("max_position_embeddings", 2048);
  c.normEpsilon = json.value("rms_norm_eps", 1e-6);
  c.ropeTheta = json.value("rope_theta", 10000.0);
  auto rejectScaling = [&](const char *key) {
    if (!json.contains(key) || json[key].is_null())
      return;
    const auto &rope = json[key];
    if (rope.contains("rope_theta"))
      c.ropeTheta = rope["rope_theta"];
    std::string type = rope.value("rope_type", rope.value("type", "default"));
    if (type != "default")
      throw Error("{}: rope scaling '{}' is not supported yet", where, type);
  };
  rejectScaling("rope_scaling");
  rejectScaling("rope_parameters");
  if (json.value("hidden_act", "silu") != "silu")
    throw Error("{}: activation '{}' is not supported; silu is", where,
                json.value("hidden_act", ""));
  if (json.contains("sliding_window") && !json["sliding_window"].is_null() &&
      json.value("use_sliding_window", c.architecture == "mistral") &&
      integer("sliding_window") < c.contextLength)
    throw Error("{}: sliding-window attention is not supported yet", where);
  checkConfig(where, c);
}

static void readTokenizer(const fs::path &folder, const json &config,
                          Checkpoint &result) {
  TokenizerFiles &t = result.tokenizer;
  fs::path path = fileIn(folder, "tokenizer.json");
  if (fs::exists(path))
    t.json = readText(path);
  json merged = config;
  if (auto generation = readOptionalJson(folder, "generation_config.json"))
    merged.merge_patch(*generation);
  auto checked = [&](const json &id) {
    int64_t value = rt::jsonInteger(id, folder.string() + ": a token id");
    if (value < 0 || value >= result.config.vocab)
      throw Error("{}: token id {} is outside the vocabulary", folder.string(),
                  value);
    return uint32_t(value);
  };
  if (merged.contains("eos_token_id") && !merged["eos_token_id"].is_null()) {
    const json &eos = merged["eos_token_id"];
    if (eos.is_array())
      for (const json &id : eos)
        t.eos.push_back(checked(id));
    else
      t.eos.push_back(checked(eos));
  }
  if (merged.contains("bos_token_id") && merged["bos_token_id"].is_number())
    t.bos = int32_t(checked(merged["bos_token_id"]));
  if (auto tokenizer = readOptionalJson(folder, "tokenizer_config.json")) {
    const json &chat = (*tokenizer)["chat_template"];
    if (chat.is_string())
      t.chatTemplate = chat;
    t.addBos = tokenizer->value("add_bos_token", false);
  }
  if (fs::path chat = fileIn(folder, "chat_template.jinja"); fs::exists(chat))
    t.chatTemplate = readText(chat);
}

Checkpoint import::readHuggingFace(const fs::path &folder) {
  fs::path configPath = fileIn(folder, "config.json");
  if (!fs::exists(configPath))
    throw Error("{}: has no config.json; is it a Hugging Face model folder?",
                folder.string());
  Checkpoint result;
  try {
    json config = readJson(configPath);
    readConfig(configPath, config, result);
    std::set<std::string> shards;
    if (auto index = readOptionalJson(folder, "model.safetensors.index.json"))
      for (const auto &[name, file] : index->at("weight_map").items())
        shards.insert(file.get<std::string>());
    else
      shards.insert("model.safetensors");
    for (const std::string &shard : shards)
      readSafetensors(fileIn(folder, shard), result.tensors);
    readTokenizer(folder, config, result);
  } catch (const json::exception &error) {
    throw Error("{}: {}", configPath.string(), error.what());
  }
  return result;
}
