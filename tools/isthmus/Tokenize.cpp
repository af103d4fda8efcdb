//===- Tokenize.cpp - 'isthmus tokenize' ----------------------------------===//
#include "Commands.h"
#include "Session.h"

#include "isthmus/runtime/Bundle.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Tokenizer.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace isthmus;

void cli::addTokenize(CLI::App &app) {
  struct Options {
    std::string bundle, file;
  };
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "tokenize",
      "Print the token ids of a text file as a JSON list\n\nExample:\n"
      "  isthmus tokenize smol.isth README.md\n");
  command->add_option("BUNDLE", o->bundle, "a bundle")->required();
  command->add_option("FILE", o->file, "a UTF-8 text file")->required();
  command->callback([o] {
    rt::Bundle bundle(o->bundle);
    auto tokenizer = loadTokenizer(bundle);
    if (!tokenizer)
      throw rt::Error("{}: the bundle has no tokenizer", o->bundle);
    rt::MappedFile text(o->file);
    std::string_view view(reinterpret_cast<const char *>(text.bytes().data()),
                          text.bytes().size());
    fmt::print("{}\n", nlohmann::json(tokenizer->encode(view)).dump());
  });
}
