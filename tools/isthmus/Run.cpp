//===- Run.cpp - 'isthmus run' and 'isthmus chat' -------------------------===//
#include "Commands.h"
#include "Encoders.h"
#include "Graphs.h"
#include "Session.h"

#include "isthmus/runtime/Engine.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/TextStream.h"

#include <chrono>
#include <future>
#include <iostream>
#include <nlohmann/json.hpp>

using namespace isthmus;
using namespace isthmus::cli;
using Clock = std::chrono::steady_clock;

namespace {
double secondsBetween(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

struct Answer {
  std::vector<int32_t> tokens;
  std::string text;
  double prefillSeconds = 0, decodeSeconds = 0;
};

/// Runs one request to its end; prints text as it comes if `stream`.
Answer generate(rt::Engine &engine, const Session &session,
                const std::shared_ptr<rt::Request> &request, bool stream) {
  Answer answer;
  std::promise<std::string> done;
  std::optional<rt::TextStream> text;
  if (session.tokenizer)
    text.emplace(*session.tokenizer, std::vector<std::string>());
  auto emit = [&](const std::string &piece) {
    answer.text += piece;
    if (stream)
      std::cout << piece << std::flush;
  };
  Clock::time_point start = Clock::now(), first, last;
  request->onToken = [&](int32_t token) {
    last = Clock::now();
    if (answer.tokens.empty())
      first = last;
    answer.tokens.push_back(token);
    if (text)
      emit(text->push(token));
    return true;
  };
  request->onFinish = [&](rt::FinishReason, const std::string &error) {
    done.set_value(error);
  };
  engine.submit(request);
  std::string error = done.get_future().get();
  if (!error.empty())
    throw rt::Error(error);
  if (text)
    emit(text->finish());
  if (!answer.tokens.empty()) {
    answer.prefillSeconds = secondsBetween(start, first);
    answer.decodeSeconds = secondsBetween(first, last);
  }
  return answer;
}

struct SamplingOptions {
  rt::SamplingParams params{0.0f, 1.0f, 0, 0};
  uint32_t maxTokens = 128;
  void addTo(CLI::App &app) {
    app.add_option("--max-tokens", maxTokens, "longest answer")
        ->check(CLI::Range(1u, 1u << 24))
        ->capture_default_str();
    app.add_option("--temperature", params.temperature,
                   "0 takes the most likely token")
        ->check(CLI::Range(0.0f, 100.0f))
        ->capture_default_str();
    app.add_option("--top-p", params.topP)->check(CLI::Range(0.0f, 1.0f));
    app.add_option("--top-k", params.topK)->check(CLI::Range(0, 1 << 24));
    app.add_option("--seed", params.seed);
  }
};
} // namespace

void cli::addRun(CLI::App &app) {
  struct Options {
    SessionOptions session;
    SamplingOptions sampling;
    EncodeOptions encode;
    std::string prompt;
    std::vector<int32_t> tokens;
    bool ignoreEos = false, json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "run",
      "Continue a prompt, encode texts and images, or run an ONNX "
      "graph\n\nExample:\n  isthmus "
      "run "
      "smol.isth --prompt 'The isthmus of Panama' --max-tokens 32\n  isthmus "
      "run clip.isth --image cat.jpg --text 'a cat' --text 'a dog'\n  isthmus "
      "run "
      "graph.isth --input x=x.npy -o results\n");
  o->session.addTo(*command);
  o->session.addRemoteTo(*command);
  o->sampling.addTo(*command);
  auto *prompt = command->add_option("--prompt", o->prompt, "text to continue");
  command->add_option("--tokens", o->tokens, "token ids to continue: 1,2,3")
      ->delimiter(',')
      ->excludes(prompt);
  o->encode.addTo(*command);
  command->add_flag("--ignore-eos", o->ignoreEos, "go on after the end token");
  command->add_flag("--json", o->json,
                    "print tokens, text and timings as JSON");
  command->callback([o] {
    rt::Bundle bundle = openTrusted(o->session.bundle);
    if (isGraph(bundle)) {
      if (!o->encode.texts.empty() || !o->encode.images.empty() ||
          !o->prompt.empty() || !o->tokens.empty())
        throw rt::Error("{}: is a graph of tensors; give it --input NAME=FILE",
                        o->session.bundle);
      return runGraph(std::move(bundle), o->session,
                      {o->encode.inputs, o->encode.output, o->json});
    }
    if (!isGenerator(bundle)) {
      if (!o->encode.any() || !o->prompt.empty() || !o->tokens.empty())
        throw rt::Error("{}: makes embeddings or classes; give it --text, "
                        "--image or --input",
                        o->session.bundle);
      o->encode.json = o->json;
      Encoders encoders(std::move(bundle), o->session);
      return runEncoders(encoders, o->encode);
    }
    if (o->encode.any() || !o->encode.output.empty())
      throw rt::Error("{}: continues texts; give it a --prompt",
                      o->session.bundle);
    Session session(std::move(bundle), o->session);
    auto request = std::make_shared<rt::Request>();
    request->prompt =
        o->tokens.empty() ? session.encodePrompt(o->prompt) : o->tokens;
    request->sampling = o->sampling.params;
    request->maxTokens = o->sampling.maxTokens;
    if (!o->ignoreEos)
      request->stopTokens = session.stopTokens();
    const size_t promptTokens = request->prompt.size();
    rt::Engine engine(*session.runner, 1);
    Answer answer = generate(engine, session, request, !o->json);
    const double steps = double(answer.tokens.size()) - 1;
    if (o->json) {
      nlohmann::json out = {
          {"tokens", answer.tokens},
          {"text", answer.text},
          {"prompt_tokens", promptTokens},
          {"prefill_seconds", answer.prefillSeconds},
          {"decode_seconds", answer.decodeSeconds},
          {"prefill_tok_s", answer.prefillSeconds > 0
                                ? double(promptTokens) / answer.prefillSeconds
                                : 0},
          {"decode_tok_s",
           answer.decodeSeconds > 0 ? steps / answer.decodeSeconds : 0}};
      std::cout << out.dump(-1, ' ', false,
                            nlohmann::json::error_handler_t::replace)
                << "\n";
    } else {
      std::cout << std::endl;
    }
  });
}

void cli::addChat(CLI::App &app) {
  struct Options {
    SessionOptions session;
    SamplingOptions sampling;
    std::string system;
  };
  auto o = std::make_shared<Options>();
  o->sampling.maxTokens = 512;
  CLI::App *command = app.add_subcommand(
      "chat", "Talk with a model in the terminal\n\nExample:\n  isthmus chat "
              "smol.isth\n");
  o->session.addTo(*command);
  o->session.addRemoteTo(*command);
  o->sampling.addTo(*command);
  command->add_option("--system", o->system, "system message");
  command->callback([o] {
    Session session(o->session);
    rt::Engine engine(*session.runner, 1);
    auto messages = nlohmann::json::array();
    if (!o->system.empty())
      messages.push_back({{"role", "system"}, {"content", o->system}});
    std::cerr << "An empty line or Ctrl-D ends the conversation.\n";
    while (true) {
      std::cerr << "> " << std::flush;
      std::string line;
      if (!std::getline(std::cin, line) || line.empty())
        return;
      messages.push_back({{"role", "user"}, {"content", line}});
      auto request = std::make_shared<rt::Request>();
      request->prompt = session.encodeChat(messages);
      request->sampling = o->sampling.params;
      request->maxTokens = o->sampling.maxTokens;
      request->stopTokens = session.stopTokens();
      Answer answer = generate(engine, session, request, true);
      std::cout << std::endl;
      messages.push_back({{"role", "assistant"}, {"content", answer.text}});
    }
  });
}
