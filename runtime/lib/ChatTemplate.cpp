//===- ChatTemplate.cpp - from messages to a prompt -----------------------===//
#include "isthmus/runtime/ChatTemplate.h"

#include "isthmus/runtime/Error.h"

#include <nlohmann/json.hpp>

#include <jinja/lexer.h>
#include <jinja/parser.h>
#include <jinja/runtime.h>
#include <json.h>

using namespace isthmus::rt;

struct ChatTemplate::Impl {
  std::string source, bos, eos;
  jinja::program program;
};

ChatTemplate::ChatTemplate(const std::string &source, std::string bosToken,
                           std::string eosToken)
    : impl(new Impl{source, std::move(bosToken), std::move(eosToken), {}}) {
  try {
    jinja::lexer lexer;
    impl->program = jinja::parse_from_tokens(lexer.tokenize(source));
  } catch (const std::exception &error) {
    throw Error("the model's chat template does not parse: {}", error.what());
  }
}

ChatTemplate::~ChatTemplate() = default;

ChatTemplate::Prompt ChatTemplate::apply(const nlohmann::json &messages) const {
  const nlohmann::json outside = {{"messages", messages}};
  const nlohmann::json own = {{"bos_token", impl->bos},
                              {"eos_token", impl->eos},
                              {"add_generation_prompt", true}};
  try {
    jinja::context context(impl->source);
    jinja::global_from_json(context, common_json::parse(outside.dump()),
                            /*mark_input=*/true);
    jinja::global_from_json(context, common_json::parse(own.dump()),
                            /*mark_input=*/false);
    jinja::runtime runtime(context);
    jinja::value result = runtime.execute(impl->program);
    auto parts = jinja::runtime::gather_string_parts(result);
    Prompt prompt;
    for (const auto &part : parts->as_string().parts) {
      size_t first = prompt.text.size();
      prompt.text += part.val;
      if (part.is_input)
        prompt.untrusted.emplace_back(first, prompt.text.size());
    }
    return prompt;
  } catch (const std::exception &error) {
    throw Error("the chat template refuses these messages: {}", error.what());
  }
}
