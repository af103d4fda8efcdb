//===- isthmus.cpp - the one command users see ----------------------------===//
//
// Runs models; 'compile' is handed to isthmus-compile beside it, so that this
// program needs no LLVM.
//
//===----------------------------------------------------------------------===//
#include "Commands.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>
#include <vector>

using namespace isthmus;

static int compile(int argc, char **argv) {
  std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe");
  std::string compiler = own.parent_path() / "isthmus-compile";
  std::vector<char *> arguments{compiler.data()};
  for (int i = 2; i < argc; ++i)
    arguments.push_back(argv[i]);
  arguments.push_back(nullptr);
  execv(compiler.c_str(), arguments.data());
  fmt::print(stderr,
             "isthmus: error: {}: {} (this installation has no "
             "compiler)\n",
             compiler, std::strerror(errno));
  return 1;
}

int main(int argc, char **argv) {
  if (argc > 1 && std::strcmp(argv[1], "compile") == 0)
    return compile(argc, argv);
  CLI::App app{
      "isthmus: compile foundation models for the devices you own, and "
      "run them there.\n\nExample:\n"
      "  isthmus compile model.gguf -o model.isth\n"
      "  isthmus chat model.isth\n"};
  app.require_subcommand(1);
  app.add_subcommand("compile", "Compile a model into a bundle");
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
