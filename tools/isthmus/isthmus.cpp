//===- isthmus.cpp - the one command users see ----------------------------===//
//
// Runs models; 'compile' and 'tune' are handed to isthmus-compile beside it, so
// that this program needs no LLVM.
//
//===----------------------------------------------------------------------===//
#include "../Completion.h"
#include "Commands.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <unistd.h>
#include <vector>

using namespace isthmus;

/// Whether a command is the compiler's.
static bool isCompilers(std::string_view command) {
  return command == "compile" || command == "tune";
}

/// Hands the arguments after `argv[0]` to the compiler.
static int compile(int argc, char **argv) {
  std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe");
  std::string compiler = own.parent_path() / "isthmus-compile";
  std::vector<char *> arguments{compiler.data()};
  for (int i = argv[1] == std::string_view("compile") ? 2 : 1; i < argc; ++i)
    arguments.push_back(argv[i]);
  arguments.push_back(nullptr);
  execv(compiler.c_str(), arguments.data());
  fmt::print(stderr,
             "isthmus: error: {}: {} (this installation has no "
             "compiler)\n",
             compiler, std::strerror(errno));
  return 1;
}

/// What a shell needs to ask 'isthmus complete' for words.
static const std::map<std::string, const char *> kShells = {
    {"bash", R"SH(_isthmus() {
  local typed=("${COMP_WORDS[@]:1:COMP_CWORD}")
  COMPREPLY=($(compgen -W "$(isthmus complete -- "${typed[@]}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _isthmus isthmus
)SH"},
    {"zsh", R"SH(_isthmus() {
  compadd -- $(isthmus complete -- "${words[@]:1:$((CURRENT - 1))}" 2>/dev/null) || _files
}
compdef _isthmus isthmus
)SH"},
    {"fish",
     R"SH(complete -c isthmus -a '(isthmus complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
)SH"}};

static void addCompletion(CLI::App &app) {
  auto shell = std::make_shared<std::string>();
  CLI::App *command = app.add_subcommand(
      "completion", "Print a script that completes commands and options in a "
                    "shell\n\nExample:\n  source <(isthmus completion bash)\n");
  command->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember(kShells));
  command->callback([shell] { fmt::print("{}", kShells.at(*shell)); });
}

/// 'isthmus complete -- WORDS...' for the scripts above.
static int completeWords(CLI::App &app, int argc, char **argv) {
  std::vector<std::string> words(argv + 2, argv + argc);
  if (!words.empty() && words[0] == "--")
    words.erase(words.begin());
  if (words.size() < 2 || !isCompilers(words[0]))
    return cli::printCompletions(app, words);
  // The compiler knows its own options: [tune] complete WORDS...
  std::vector<char *> arguments{argv[0], words[0].data(), argv[1]};
  for (size_t i = 1; i < words.size(); ++i)
    arguments.push_back(words[i].data());
  return compile(int(arguments.size()), arguments.data());
}

int main(int argc, char **argv) {
  if (argc > 1 && isCompilers(argv[1]))
    return compile(argc, argv);
  CLI::App app{
      "isthmus: compile foundation models for the devices you own, and "
      "run them there.\n\nExample:\n"
      "  isthmus compile model.gguf -o model.isth\n"
      "  isthmus chat model.isth\n"};
  app.require_subcommand(1);
  app.add_subcommand("compile", "Compile a model into a bundle");
  app.add_subcommand("tune", "Search the fastest kernel schedule");
  cli::addRun(app);
  cli::addChat(app);
  cli::addServe(app);
  cli::addWorker(app);
  cli::addCluster(app);
  cli::addInspect(app);
  cli::addTrust(app);
  cli::addEval(app);
  cli::addBench(app);
  cli::addLogits(app);
  cli::addTokenize(app);
  addCompletion(app);
  if (argc > 1 && std::strcmp(argv[1], "complete") == 0)
    return completeWords(app, argc, argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error);
  } catch (const std::exception &error) {
    fmt::print(stderr, "isthmus: error: {}\n", error.what());
    return 1;
  }
  return 0;
}
