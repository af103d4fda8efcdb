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

/// Adds what `object` says under `prefix`, objects inside it too.
static void addSettings(const json &object, const std::string &prefix,
                        Settings &settings, int depth = 0) {
  constexpr int kDeepest = 8;
  if (depth > kDeepest)
    throw Error("{}: '{}' is nested deeper than {} objects", settings.file(),
                prefix, kDeepest);
  for (const auto &[key, value] : object.items()) {
    const std::string name = prefix + key;
    if (value.is_object())
      addSettings(value, name + ".", settings, depth + 1);
    else if (value.is_boolean())
      settings.set(name, value.get<bool>());
    else if (value.is_number_integer())
      settings.set(name, rt::jsonInteger(value, settings.file() + ": " + name));
    else if (value.is_number())
      settings.set(name, value.get<double>());
    else if (value.is_string())
      settings.set(name, value.get<std::string>());
    else if (value.is_array() && std::ranges::all_of(value, [](const json &v) {
               return v.is_string();
             }))
      settings.set(name, value.get<std::vector<std::string>>());
  }
}

static void readTokenizer(const fs::path &folder, const json &config,
                          Checkpoint &result) {
  const int64_t vocabulary = result.settings.size("vocab_size");
  TokenizerFiles &t = result.tokenizer;
  fs::path path = fileIn(folder, "tokenizer.json");
  if (fs::exists(path)) {
    t.json = readText(path);
    const json model = readJson(path).value("model", json());
    if (model.is_object() && model.value("byte_fallback", false)) {
      t.json.clear();
      t.unsupported = "a tokenizer with byte fallback (SentencePiece) is not "
                      "supported yet";
    }
  }
  json merged = config;
  if (auto generation = readOptionalJson(folder, "generation_config.json"))
    merged.merge_patch(*generation);
  auto checked = [&](const json &id) {
    int64_t value = rt::jsonInteger(id, folder.string() + ": a token id");
    if (value < 0 || value >= vocabulary)
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
    result.name = folder.filename().string();
    result.architecture = config.value("model_type", "");
    result.settings = Settings(configPath.string());
    addSettings(config, "", result.settings);
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
