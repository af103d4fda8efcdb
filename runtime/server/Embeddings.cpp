//===- Embeddings.cpp - embeddings and classes over HTTP ------------------===//
#include "Embeddings.h"

#include "Fields.h"
#include "isthmus/runtime/Crypto.h"
#include "isthmus/runtime/Encoder.h"

#include <algorithm>

using namespace isthmus::rt;
using nlohmann::json;

/// As many as OpenAI takes.
static constexpr size_t kMostInputs = 2048;

namespace {
[[noreturn]] void reject(const std::string &why) {
  throw ApiError(400, why, "input");
}

/// A picture in base64, perhaps behind the head of a data: URL.
std::vector<std::byte> readImage(const json &value) {
  if (!value.is_string())
    reject("an image must be a string: base64, or a data: URL");
  std::string_view text = value.get_ref<const std::string &>();
  if (text.starts_with("http://") || text.starts_with("https://"))
    reject("images are not fetched from URLs; send the picture in base64");
  if (text.starts_with("data:")) {
    const size_t comma = text.find(";base64,");
    if (comma == text.npos)
      reject("a data: URL must be in base64");
    text.remove_prefix(comma + 8);
  }
  auto bytes = fromBase64(text);
  if (!bytes)
    reject("an image is not base64");
  return *bytes;
}

EncoderInput readInput(const json &value) {
  if (value.is_string())
    return value.get<std::string>();
  if (value.is_array() && !value.empty())
    return readIds(value, "input", "texts or lists of token ids");
  if (value.is_object()) {
    if (auto text = value.find("text");
        text != value.end() && text->is_string())
      return text->get<std::string>();
    if (auto image = value.find("image"); image != value.end())
      return readImage(*image);
    if (auto image = value.find("image_url"); image != value.end())
      return readImage(image->is_object() ? image->value("url", json())
                                          : *image);
  }
  reject("each input must be a text, a list of token ids, or an object with "
         "'text', 'image' or 'image_url'");
}

std::vector<EncoderInput> readInputs(const Fields &fields) {
  if (!fields.has("input"))
    reject("'input' is missing");
  const json &input = fields.at("input");
  std::vector<EncoderInput> inputs;
  const bool one = !input.is_array() || input.empty() || input[0].is_number();
  if (one)
    inputs.push_back(readInput(input));
  else
    for (const json &value : input) {
      if (inputs.size() == kMostInputs)
        reject(fmt::format("at most {} inputs are taken at once", kMostInputs));
      inputs.push_back(readInput(value));
    }
  return inputs;
}

Encodings encode(const Fields &fields, const ServedModel &model) {
  try {
    return model.encode(readInputs(fields));
  } catch (const ApiError &) {
    throw;
  } catch (const Error &error) {
    reject(error.what());
  }
}

json answer(const ServedModel &model, json data, size_t tokens) {
  return {{"object", "list"},
          {"data", std::move(data)},
          {"model", model.name},
          {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
}
} // namespace

json isthmus::rt::answerEmbeddings(const std::string &body,
                                   const ServedModel &model) {
  if (!model.encode || model.classifies)
    throw ApiError(400, fmt::format("'{}' makes no embeddings{}", model.name,
                                    model.classifies ? ", see /classify" : ""));
  const json parsed = parseBody(body, model);
  Fields fields(parsed);
  const json format = parsed.value("encoding_format", json("float"));
  if (format != "float" && format != "base64")
    throw ApiError(400, "'encoding_format' must be 'float' or 'base64'",
                   "encoding_format");
  Encodings encodings = encode(fields, model);
  if (fields.has("dimensions") &&
      fields.at("dimensions") != json(encodings.vectors[0].size()))
    throw ApiError(400,
                   fmt::format("embeddings of '{}' have {} dimensions, no "
                               "others",
                               model.name, encodings.vectors[0].size()),
                   "dimensions");
  json data = json::array();
  for (const std::vector<float> &vector : encodings.vectors)
    data.push_back({{"object", "embedding"},
                    {"index", data.size()},
                    {"embedding",
                     format == "float"
                         ? json(vector)
                         : json(toBase64(std::as_bytes(std::span(vector))))}});
  return answer(model, std::move(data), encodings.tokens);
}

json isthmus::rt::answerClassify(const std::string &body,
                                 const ServedModel &model) {
  if (!model.encode || !model.classifies)
    throw ApiError(400, fmt::format("'{}' makes no classes", model.name));
  const json parsed = parseBody(body, model);
  Encodings encodings = encode(Fields(parsed), model);
  json data = json::array();
  for (const std::vector<float> &logits : encodings.vectors) {
    const auto best = std::ranges::max_element(logits);
    const auto probabilities =
        softmax(std::vector<double>(logits.begin(), logits.end()));
    const auto index = size_t(best - logits.begin());
    data.push_back(
        {{"index", data.size()},
         {"label", index < model.labels.size() ? model.labels[index]
                                               : std::to_string(index)},
         {"probs", probabilities},
         {"num_classes", logits.size()}});
  }
  return answer(model, std::move(data), encodings.tokens);
}
