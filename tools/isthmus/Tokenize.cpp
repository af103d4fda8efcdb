//===- Tokenize.cpp - 'isthmus tokenize' ----------------------------------===//
#include "Commands.h"

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
    if (!bundle.manifest().has_tokenizer())
      throw rt::Error("{}: the bundle has no tokenizer", o->bundle);
    uint32_t blob = bundle.manifest().tokenizer().blob();
    auto json = bundle.blob(blob);
    rt::Bundle::Range whole{blob, 0, json.size()};
    bundle.verify({&whole, 1}, 1);
    auto view = [](std::span<const std::byte> bytes) {
      return std::string_view(reinterpret_cast<const char *>(bytes.data()),
                              bytes.size());
    };
    rt::Tokenizer tokenizer(view(json));
    rt::MappedFile text(o->file);
    fmt::print("{}\n",
               nlohmann::json(tokenizer.encode(view(text.bytes()))).dump());
  });
}
