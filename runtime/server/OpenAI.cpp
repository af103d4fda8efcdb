//===- OpenAI.cpp - the OpenAI API over an engine -------------------------===//
#include "OpenAI.h"

#include "Fields.h"

#include "isthmus/runtime/Crypto.h"

#include <ctime>

using namespace isthmus::rt;
using nlohmann::json;

json ApiError::body() const {
  auto orNull = [](const std::string &text) {
    return text.empty() ? json() : json(text);
  };
  return {{"error",
           {{"message", what()},
            {"type", status >= 500 ? "server_error" : "invalid_request_error"},
            {"param", orNull(parameter)},
            {"code", orNull(code)}}}};
}

namespace {
std::vector<std::string> readStop(const Fields &fields) {
  std::vector<std::string> stop;
  if (!fields.has("stop"))
    return stop;
  const json &value = fields.at("stop");
  if (value.is_string())
    stop.push_back(value);
  else if (value.is_array() && value.size() <= 16)
    for (const json &entry : value) {
      if (!entry.is_string())
        throw ApiError(400, "'stop' must hold strings", "stop");
      stop.push_back(entry);
    }
  else
    throw ApiError(400, "'stop' must be a string or at most 16 of them",
                   "stop");
  return stop;
}

/// Messages with contents as plain strings, whatever form they came in.
json normalizeMessages(const Fields &fields) {
  if (!fields.has("messages") || !fields.at("messages").is_array() ||
      fields.at("messages").empty())
    throw ApiError(400, "'messages' must be a list with at least one message",
                   "messages");
  json messages = json::array();
  for (const json &message : fields.at("messages")) {
    if (!message.is_object() || !message.contains("role") ||
        !message.at("role").is_string())
      throw ApiError(400, "each message needs a 'role'", "messages");
    std::string text;
    const json content = message.value("content", json());
    if (content.is_string()) {
      text = content;
    } else if (content.is_array()) {
      for (const json &part : content) {
        if (!part.is_object() || part.value("type", "") != "text" ||
            !part.contains("text") || !part.at("text").is_string())
          throw ApiError(400, "this model takes text content only", "messages");
        text += part.at("text").get<std::string>();
      }
    } else if (!content.is_null()) {
      throw ApiError(400, "'content' must be a string or a list of parts",
                     "messages");
    }
    messages.push_back({{"role", message.at("role")}, {"content", text}});
  }
  return messages;
}

std::vector<int32_t> readPrompt(const Fields &fields,
                                const ServedModel &model) {
  if (!fields.has("prompt"))
    throw ApiError(400, "'prompt' is missing", "prompt");
  const json *prompt = &fields.at("prompt");
  if (prompt->is_array() && prompt->size() == 1 && !(*prompt)[0].is_number())
    prompt = &(*prompt)[0];
  if (prompt->is_string())
    return model.encodePrompt(prompt->get<std::string>());
  return prompt->is_array()
             ? readIds(*prompt, "prompt", "one text or one list of token ids")
             : std::vector<int32_t>();
}
} // namespace

std::vector<int32_t> isthmus::rt::readIds(const json &list,
                                          const std::string &parameter,
                                          const std::string &expected) {
  std::vector<int32_t> ids;
  for (const json &id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() > INT32_MAX)
      throw ApiError(400, fmt::format("'{}' must be {}", parameter, expected),
                     parameter);
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

json isthmus::rt::parseBody(const std::string &body, const ServedModel &model) {
  json parsed;
  try {
    parsed = json::parse(body);
  } catch (const json::exception &error) {
    throw ApiError(400, fmt::format("the body is not JSON: {}", error.what()));
  }
  if (!parsed.is_object())
    throw ApiError(400, "the body must be a JSON object");
  Fields fields(parsed);
  if (fields.has("model") &&
      !(fields.at("model").is_string() && fields.at("model") == model.name))
    throw ApiError(404,
                   fmt::format("there is no model {}; '{}' is served here",
                               fields.at("model").dump(), model.name),
                   "model", "model_not_found");
  return parsed;
}

CompletionRequest isthmus::rt::parseCompletion(const std::string &body,
                                               bool chat,
                                               const ServedModel &model) {
  if (!model.engine)
    throw ApiError(400, fmt::format("'{}' makes {}; it continues no text",
                                    model.name,
                                    model.classifies ? "classes, see /classify"
                                                     : "embeddings, see "
                                                       "/v1/embeddings"));
  const json parsed = parseBody(body, model);
  Fields fields(parsed);
  if (fields.integer("n", 1, 1, 128) != 1)
    throw ApiError(400, "only one answer a request is supported", "n");
  for (const char *name : {"tools", "functions", "response_format", "logprobs",
                           "logit_bias", "echo", "suffix", "best_of"})
    if (fields.has(name) && fields.at(name) != json(false) &&
        !(fields.at(name).is_structured() && fields.at(name).empty()) &&
        !(fields.at(name).is_object() &&
          fields.at(name).value("type", "") == "text"))
      throw ApiError(400, fmt::format("'{}' is not supported yet", name), name);

  CompletionRequest result;
  result.chat = chat;
  result.stream = fields.boolean("stream", false);
  if (fields.has("stream_options") && fields.at("stream_options").is_object())
    result.includeUsage =
        Fields(fields.at("stream_options")).boolean("include_usage", false);
  result.stop = readStop(fields);

  auto request = std::make_shared<Request>();
  request->sampling.temperature = float(fields.number("temperature", 1, 0, 2));
  request->sampling.topP = float(fields.number("top_p", 1, 0, 1));
  request->sampling.topK = int32_t(fields.integer("top_k", 0, -1, INT32_MAX));
  if (fields.has("seed"))
    request->sampling.seed =
        uint64_t(fields.integer("seed", 0, INT64_MIN, INT64_MAX));
  else
    randomBytes({reinterpret_cast<uint8_t *>(&request->sampling.seed),
                 sizeof(uint64_t)});
  request->stopTokens = model.stopTokens;
  try {
    request->prompt = chat ? model.encodeChat(normalizeMessages(fields))
                           : readPrompt(fields, model);
  } catch (const ApiError &) {
    throw;
  } catch (const Error &error) {
    throw ApiError(400, error.what(), chat ? "messages" : "prompt");
  }
  const ModelInfo &info = model.engine->info();
  if (request->prompt.empty())
    throw ApiError(400, "the prompt is empty", chat ? "messages" : "prompt");
  uint64_t room = std::min(info.contextLength, info.pages * kPagePositions);
  if (request->prompt.size() >= room)
    throw ApiError(400,
                   fmt::format("the prompt has {} tokens, and the context "
                               "served here is {}; shorten it",
                               request->prompt.size(), room),
                   chat ? "messages" : "prompt", "context_length_exceeded");
  const char *limit = fields.has("max_completion_tokens")
                          ? "max_completion_tokens"
                          : "max_tokens";
  int64_t fallback = chat ? int64_t(room) : 16; // as the API defines it
  request->maxTokens = uint32_t(
      std::min<uint64_t>(uint64_t(fields.integer(limit, fallback, 1, 1 << 24)),
                         room - request->prompt.size()));
  result.request = std::move(request);
  return result;
}

CompletionWriter::CompletionWriter(const CompletionRequest &request,
                                   const ServedModel &model)
    : chat(request.chat), model(model.name), created(time(nullptr)),
      promptTokens(request.request->prompt.size()) {
  uint8_t random[12];
  randomBytes(random);
  id = (chat ? "chatcmpl-" : "cmpl-") + toHex(random);
}

json CompletionWriter::object(const char *kind) const {
  return {{"id", id}, {"object", kind}, {"created", created}, {"model", model}};
}

json CompletionWriter::usage(size_t tokens) const {
  return {{"prompt_tokens", promptTokens},
          {"completion_tokens", tokens},
          {"total_tokens", promptTokens + tokens}};
}

json CompletionWriter::whole(const std::string &text, const std::string &reason,
                             size_t tokens) const {
  json out = object(chat ? "chat.completion" : "text_completion");
  json choice = {
      {"index", 0}, {"finish_reason", reason}, {"logprobs", nullptr}};
  if (chat)
    choice["message"] = {{"role", "assistant"}, {"content", text}};
  else
    choice["text"] = text;
  out["choices"] = json::array({choice});
  out["usage"] = usage(tokens);
  return out;
}

json CompletionWriter::firstChunk() const {
  json out = object("chat.completion.chunk");
  out["choices"] =
      json::array({{{"index", 0},
                    {"delta", {{"role", "assistant"}, {"content", ""}}},
                    {"finish_reason", nullptr}}});
  return out;
}

json CompletionWriter::chunk(const std::string &text) const {
  json out = object(chat ? "chat.completion.chunk" : "text_completion");
  json choice = {{"index", 0}, {"finish_reason", nullptr}};
  if (chat)
    choice["delta"] = {{"content", text}};
  else
    choice["text"] = text;
  out["choices"] = json::array({choice});
  return out;
}

json CompletionWriter::lastChunk(const std::string &reason) const {
  json out = object(chat ? "chat.completion.chunk" : "text_completion");
  json choice = {{"index", 0}, {"finish_reason", reason}};
  if (chat)
    choice["delta"] = json::object();
  else
    choice["text"] = "";
  out["choices"] = json::array({choice});
  return out;
}

json CompletionWriter::usageChunk(size_t tokens) const {
  json out = object(chat ? "chat.completion.chunk" : "text_completion");
  out["choices"] = json::array();
  out["usage"] = usage(tokens);
  return out;
}

json isthmus::rt::listModels(const ServedModel &model) {
  return {{"object", "list"},
          {"data", json::array({{{"id", model.name},
                                 {"object", "model"},
                                 {"created", 0},
                                 {"owned_by", "isthmus"}}})}};
}

std::string isthmus::rt::metricsText(const EngineStats &s) {
  std::string out;
  auto add = [&](const char *name, const char *type, const char *help,
                 uint64_t value) {
    out += fmt::format("# HELP isthmus_{0} {1}\n# TYPE isthmus_{0} {2}\n"
                       "isthmus_{0} {3}\n",
                       name, help, type, value);
  };
  add("requests_total", "counter", "Requests accepted", s.requests);
  add("prompt_tokens_total", "counter", "Prompt tokens admitted",
      s.promptTokens);
  add("generated_tokens_total", "counter", "Tokens generated",
      s.generatedTokens);
  add("steps_total", "counter", "Steps run", s.steps);
  add("requests_active", "gauge", "Requests being answered", s.active);
  add("requests_waiting", "gauge", "Requests waiting for memory", s.waiting);
  add("kv_pages_used", "gauge", "KV pages in use", s.pagesUsed);
  add("kv_pages", "gauge", "KV pages reserved", s.pagesTotal);
  return out;
}
