//===- OpenAI.h - the OpenAI API over an engine -----------------*- C++ -*-===//
//
// Specification: platform.openai.com/docs/api-reference (models, completions,
// chat completions). Nothing here knows about sockets.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/runtime/Engine.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Tokenizer.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>

namespace isthmus::rt {

/// What an encoder is asked to encode: a text, its ids, or the bytes of a PNG
/// or JPEG.
using EncoderInput =
    std::variant<std::string, std::vector<int32_t>, std::vector<std::byte>>;

/// A vector for each input, and the ids that were read.
struct Encodings {
  std::vector<std::vector<float>> vectors;
  size_t tokens = 0;
};

/// A model as the API sees it: one that continues texts has an engine, one that
/// makes embeddings or classes has `encode`.
struct ServedModel {
  std::string name;
  std::function<EngineStats()> stats;

  std::function<Encodings(std::span<const EncoderInput>)> encode;
  bool classifies = false; ///< vectors are the logits of `labels`
  std::vector<std::string> labels;

  Engine *engine = nullptr;
  const Tokenizer *tokenizer = nullptr;
  std::function<std::vector<int32_t>(const std::string &)> encodePrompt;
  std::function<std::vector<int32_t>(const nlohmann::json &)> encodeChat;
  std::vector<int32_t> stopTokens;
};

/// A request the client got wrong: becomes an error object and a status.
struct ApiError : Error {
  ApiError(int status, const std::string &message,
           const std::string &parameter = "", const std::string &code = "")
      : Error(message), status(status), parameter(parameter), code(code) {}
  int status;
  std::string parameter, code;
  nlohmann::json body() const;
};

/// A parsed completion request.
struct CompletionRequest {
  bool chat = false, stream = false, includeUsage = false;
  std::shared_ptr<Request> request;
  std::vector<std::string> stop;
};

/// Checks and translates the body of a completion or chat completion. Throws
/// ApiError.
CompletionRequest parseCompletion(const std::string &body, bool chat,
                                  const ServedModel &model);

/// Builds the objects of an answer.
class CompletionWriter {
public:
  CompletionWriter(const CompletionRequest &request, const ServedModel &model);

  nlohmann::json whole(const std::string &text, const std::string &reason,
                       size_t tokens) const;
  nlohmann::json firstChunk() const; ///< chat: the role
  nlohmann::json chunk(const std::string &text) const;
  nlohmann::json lastChunk(const std::string &reason) const;
  nlohmann::json usageChunk(size_t tokens) const;
  nlohmann::json usage(size_t tokens) const;

private:
  nlohmann::json object(const char *kind) const;
  bool chat;
  std::string id, model;
  int64_t created;
  size_t promptTokens;
};

nlohmann::json listModels(const ServedModel &model);
/// Prometheus text format.
std::string metricsText(const EngineStats &stats);

} // namespace isthmus::rt
