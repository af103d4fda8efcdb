//===- Session.cpp - an opened bundle, ready to answer --------------------===//
#include "Session.h"

#include "Encoders.h"

#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Worker.h"

#include <algorithm>
#include <future>
#include <nlohmann/json.hpp>

using namespace isthmus;
using namespace isthmus::cli;

void SessionOptions::addTo(CLI::App &app) {
  app.add_option("BUNDLE", bundle, "a bundle made by 'isthmus compile'")
      ->required();
  app.add_option("--threads", threads, "threads (default: all processors)");
  app.add_option(
      "--context", context,
      "KV positions to reserve over all sequences (default: what the "
      "bundle was planned for)");
}

void SessionOptions::addRemoteTo(CLI::App &app) {
  app.add_option(
      "--worker", workers,
      "address of a worker, once for each stage of the plan in order "
      "(default: run in this process)");
  app.add_option("--cluster", cluster, "folder of this cluster member (tls)");
}

rt::Bundle cli::openTrusted(const std::string &path) {
  rt::Bundle bundle(path);
  bundle.requireTrust(rt::KeyStore());
  return bundle;
}

std::optional<rt::Tokenizer> cli::loadTokenizer(const rt::Bundle &bundle) {
  if (!bundle.manifest().has_tokenizer())
    return std::nullopt;
  const bundle::Tokenizer &files = bundle.manifest().tokenizer();
  auto json = bundle.blob(files.blob());
  auto vocabulary = bundle.blob(files.vocabulary());
  const rt::Bundle::Range whole[] = {
      {files.blob(), 0, json.size()},
      {files.vocabulary(), 0, vocabulary.size()}};
  bundle.verify(whole, 1);
  return std::make_optional<rt::Tokenizer>(
      std::string_view(reinterpret_cast<const char *>(json.data()),
                       json.size()),
      vocabulary);
}

std::vector<int32_t> cli::surround(const rt::Bundle &bundle,
                                   std::vector<int32_t> ids) {
  const bundle::Tokenizer &files = bundle.manifest().tokenizer();
  ids.insert(ids.begin(), files.prefix().begin(), files.prefix().end());
  ids.insert(ids.end(), files.suffix().begin(), files.suffix().end());
  return ids;
}

Session::Session(rt::Bundle opened, const SessionOptions &options)
    : bundle(std::move(opened)) {
  if (!isGenerator(bundle))
    throw rt::Error("{}: makes embeddings or classes; it continues no text. "
                    "'isthmus run' takes its --text or --image",
                    bundle.path().string());
  // Beside the check of the weights.
  auto loading =
      std::async(std::launch::async, [this] { return loadTokenizer(bundle); });
  rt::LocalOptions localOptions;
  localOptions.threads = options.threads;
  localOptions.contextTokens = options.context;
  localOptions.limits.outputs = options.outputs;
  if (options.workers.empty()) {
    auto inProcess = std::make_unique<rt::LocalRunner>(bundle, localOptions);
    local = inProcess.get();
    runner = std::move(inProcess);
  } else {
    runner = std::make_unique<rt::RemoteRunner>(bundle, options.workers,
                                                options.cluster, localOptions);
  }
  if (auto loaded = loading.get())
    tokenizer.emplace(std::move(*loaded));
  const bundle::Tokenizer &files = bundle.manifest().tokenizer();
  if (!tokenizer || files.chat_template().empty())
    return;
  auto text = [&](int32_t id) {
    return id < 0 ? std::string() : tokenizer->decode(id, /*special=*/true);
  };
  chat = std::make_unique<rt::ChatTemplate>(
      files.chat_template(), text(files.bos()),
      files.eos_size() ? text(int32_t(files.eos(0))) : std::string());
}

const rt::Tokenizer &Session::needTokenizer() const {
  if (!tokenizer)
    throw rt::Error("{}: the bundle has no tokenizer; give ids with --tokens",
                    bundle.path().string());
  return *tokenizer;
}

std::vector<int32_t> Session::encodePrompt(const std::string &text) const {
  std::vector<int32_t> ids = needTokenizer().encode(text);
  // Prompts are often written with what begins every text.
  const auto &prefix = bundle.manifest().tokenizer().prefix();
  const size_t compared = std::min(ids.size(), size_t(prefix.size()));
  if (std::ranges::equal(prefix, std::span(ids).first(compared)))
    ids.erase(ids.begin(), ids.begin() + ptrdiff_t(compared));
  return surround(bundle, std::move(ids));
}

std::vector<int32_t> Session::encodeChat(const nlohmann::json &messages) const {
  if (!chat)
    throw rt::Error("{}: the model has no chat template; use a completion",
                    bundle.path().string());
  rt::ChatTemplate::Prompt prompt = chat->apply(messages);
  return needTokenizer().encode(prompt.text, prompt.untrusted);
}

std::vector<int32_t> Session::stopTokens() const {
  const auto &eos = bundle.manifest().tokenizer().eos();
  return {eos.begin(), eos.end()};
}
