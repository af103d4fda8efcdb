//===- HuggingFace.cpp - reads Hugging Face folders -----------------------===//
#include "isthmus/Import/Checkpoint.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Json.h"

#include <algorithm>
#include <functional>
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

static bool allOf(const json &array, bool (json::*is)() const noexcept) {
  return std::ranges::all_of(array, [&](const json &v) { return (v.*is)(); });
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
    else if (value.is_array() && allOf(value, &json::is_string))
      settings.set(name, value.get<std::vector<std::string>>());
    else if (value.is_array() && allOf(value, &json::is_number))
      settings.set(name, value.get<std::vector<double>>());
  }
}

/// Reads what a post-processor puts around a text. `checked` turns a JSON value
/// into a token id.
static void
readSurroundings(const json &processor,
                 const std::function<uint32_t(const json &)> &checked,
                 TokenizerFiles &files) {
  const std::string type = processor.value("type", "");
  if (type == "Sequence") {
    for (const json &inner : processor.at("processors"))
      readSurroundings(inner, checked, files);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    files.prefix = {checked(processor.at("cls").at(1))};
    files.suffix = {checked(processor.at("sep").at(1))};
  } else if (type == "TemplateProcessing") {
    std::vector<uint32_t> *side = &files.prefix;
    for (const json &piece : processor.at("single")) {
      if (piece.contains("Sequence")) {
        side = &files.suffix;
        continue;
      }
      const json &name = piece.at("SpecialToken").at("id");
      const json &token = processor.at("special_tokens").at(name);
      for (const json &id : token.at("ids"))
        side->push_back(checked(id));
    }
  }
}

/// Reads what sentence-transformers says of the parts around a transformer, as
/// settings "sentence.pooling", "sentence.normalize" and
/// "sentence.max_seq_length".
static void readSentenceModules(const fs::path &folder, Settings &settings) {
  if (auto config = readOptionalJson(folder, "sentence_bert_config.json"))
    addSettings(*config, "sentence.", settings);
  auto modules = readOptionalJson(folder, "modules.json");
  if (!modules)
    return;
  for (const json &module : *modules) {
    const std::string type = module.at("type").get<std::string>();
    const std::string kind = type.substr(type.rfind('.') + 1);
    if (kind == "Transformer")
      continue;
    if (kind == "Normalize") {
      settings.set("sentence.normalize", true);
      continue;
    }
    if (kind != "Pooling")
      throw Error("{}: module '{}' is not supported; Transformer, Pooling and "
                  "Normalize are",
                  (folder / "modules.json").string(), type);
    const fs::path own = fileIn(folder, module.at("path"));
    const auto config = readOptionalJson(own, "config.json");
    std::string modes;
    if (config)
      for (const auto &[name, value] : config->items())
        if (name.starts_with("pooling_mode_") && value == json(true))
          modes += (modes.empty() ? "" : ", ") + name.substr(13);
    settings.set("sentence.pooling", modes == "mean_tokens" ? "mean"
                                     : modes == "cls_token" ? "cls"
                                                            : modes);
  }
}

/// \param config has the ids that begin and end texts.
static TokenizerFiles readTokenizer(const fs::path &folder, const json &config,
                                    int64_t vocabulary) {
  TokenizerFiles t;
  fs::path path = fileIn(folder, "tokenizer.json");
  json processor;
  if (fs::exists(path)) {
    t.json = readText(path);
    const json whole = readJson(path);
    processor = whole.value("post_processor", json());
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
  bool saysBos = false;
  if (auto tokenizer = readOptionalJson(folder, "tokenizer_config.json")) {
    const json &chat = (*tokenizer)["chat_template"];
    if (chat.is_string())
      t.chatTemplate = chat;
    saysBos = tokenizer->contains("add_bos_token");
    if (tokenizer->value("add_bos_token", false) && t.bos >= 0)
      t.prefix = {uint32_t(t.bos)};
  }
  if (!saysBos && processor.is_object())
    readSurroundings(processor, checked, t);
  if (fs::path chat = fileIn(folder, "chat_template.jinja"); fs::exists(chat))
    t.chatTemplate = readText(chat);
  return t;
}

//===----------------------------------------------------------------------===//
// Beside an ONNX file
//===----------------------------------------------------------------------===//

/// Where tokenizer and configuration of an ONNX file are: its folder or, as on
/// the Hugging Face hub, the one around its folder "onnx".
static fs::path folderOf(const fs::path &onnxFile) {
  fs::path folder = onnxFile.parent_path();
  if (folder.empty())
    folder = ".";
  const fs::path around = fs::absolute(folder).lexically_normal();
  if (!fs::exists(folder / "tokenizer.json") && around.filename() == "onnx")
    return around.parent_path();
  return folder;
}

/// config.json, or what genai_config.json says of the model.
static json configBeside(const fs::path &folder) {
  json config = json::object();
  if (auto own = readOptionalJson(folder, "config.json"))
    config = *own;
  if (auto genai = readOptionalJson(folder, "genai_config.json"))
    config.merge_patch(genai->value("model", json::object()));
  return config;
}

int64_t import::contextLengthBeside(const fs::path &onnxFile) {
  const fs::path folder = folderOf(onnxFile);
  try {
    const json config = configBeside(folder);
    for (const char *name :
         {"context_length", "max_position_embeddings", "n_positions"})
      if (config.contains(name) && config[name].is_number_integer()) {
        constexpr int64_t kMost = 1 << 24;
        const std::string where = folder.string() + ": " + name;
        const int64_t length = rt::jsonInteger(config[name], where);
        if (length < 1 || length > kMost)
          throw Error("{} is {}; from 1 to {} is supported", where, length,
                      kMost);
        return length;
      }
  } catch (const json::exception &error) {
    throw Error("{}: {}", folder.string(), error.what());
  }
  return 0;
}

TokenizerFiles import::tokenizerBeside(const fs::path &onnxFile,
                                       int64_t vocabulary) {
  const fs::path folder = folderOf(onnxFile);
  try {
    return readTokenizer(folder, configBeside(folder), vocabulary);
  } catch (const json::exception &error) {
    throw Error("{}: {}", folder.string(), error.what());
  }
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
    if (auto image = readOptionalJson(folder, "preprocessor_config.json"))
      addSettings(*image, "preprocessor_config.", result.settings);
    readSentenceModules(folder, result.settings);
    std::set<std::string> shards;
    if (auto index = readOptionalJson(folder, "model.safetensors.index.json"))
      for (const auto &[name, file] : index->at("weight_map").items())
        shards.insert(file.get<std::string>());
    else
      shards.insert("model.safetensors");
    for (const std::string &shard : shards)
      readSafetensors(fileIn(folder, shard), result.tensors);
    const char *size = "vocab_size", *ofTower = "text_config.vocab_size";
    const Settings &settings = result.settings;
    if (settings.has(size) || settings.has(ofTower)) // else it takes no texts
      result.tokenizer = readTokenizer(
          folder, config, settings.size(settings.has(size) ? size : ofTower));
  } catch (const json::exception &error) {
    throw Error("{}: {}", configPath.string(), error.what());
  }
  return result;
}
