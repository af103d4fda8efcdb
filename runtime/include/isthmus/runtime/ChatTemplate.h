//===- ChatTemplate.h - from messages to a prompt ---------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Tokenizer.h"

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace isthmus::rt {

/// A model's Jinja chat template.
class ChatTemplate {
public:
  /// Throws Error if the template does not parse.
  ChatTemplate(const std::string &source, std::string bosToken,
               std::string eosToken);
  ~ChatTemplate();

  struct Prompt {
    std::string text;
    /// Parts of the text that came from messages: see Tokenizer::encode.
    std::vector<Tokenizer::Range> untrusted;
  };

  /// Renders OpenAI-style messages, ending where the assistant's turn begins.
  /// Throws Error with the template's own message if it refuses.
  Prompt apply(const nlohmann::json &messages) const;

private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};

} // namespace isthmus::rt
