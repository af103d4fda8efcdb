//===- Session.h - an opened bundle, ready to answer ------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/ChatTemplate.h"
#include "isthmus/runtime/StepRunner.h"
#include "isthmus/runtime/Tokenizer.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::cli {

/// Options that every command takes which runs a model.
struct SessionOptions {
  std::string bundle;
  unsigned threads = 0;
  uint64_t context = 0;
  uint64_t outputs = 64;
  std::vector<std::string> workers; ///< one a stage; none: this process
  std::string cluster;              ///< folder with this cluster's certificates

  void addTo(CLI::App &app);
  void addRemoteTo(CLI::App &app);
};

/// Opens a bundle whose signer this user trusts. Throws rt::Error.
rt::Bundle openTrusted(const std::string &path);

/// The ids of a text with those that stand around every text of the model.
std::vector<int32_t> surround(const rt::Bundle &bundle,
                              std::vector<int32_t> ids);

/// The bundle's tokenizer, its bytes checked; none if it has none. The bundle
/// must outlive it.
std::optional<rt::Tokenizer> loadTokenizer(const rt::Bundle &bundle);

/// A bundle that continues texts, whose signer is trusted, a runner for its
/// plan, and what it needs to speak. Throws rt::Error.
class Session {
public:
  explicit Session(const SessionOptions &options)
      : Session(openTrusted(options.bundle), options) {}
  Session(rt::Bundle bundle, const SessionOptions &options);

  rt::Bundle bundle;
  std::unique_ptr<rt::StepRunner> runner;
  std::optional<rt::Tokenizer> tokenizer;

  /// The runner if it is in this process, else nullptr.
  rt::LocalRunner *local = nullptr;

  /// Throws if the bundle has none.
  const rt::Tokenizer &needTokenizer() const;
  std::vector<int32_t> encodePrompt(const std::string &text) const;
  /// Renders and encodes chat messages with the model's own template.
  std::vector<int32_t> encodeChat(const nlohmann::json &messages) const;
  std::vector<int32_t> stopTokens() const;

private:
  std::unique_ptr<rt::ChatTemplate> chat;
};

} // namespace isthmus::cli
