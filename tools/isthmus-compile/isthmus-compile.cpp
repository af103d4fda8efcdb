//===- isthmus-compile.cpp - the 'isthmus compile' command ----------------===//
#include "isthmus/Driver/Compile.h"
#include "isthmus/Import/Llama.h"
#include "isthmus/Target/TargetDescription.h"
#include "isthmus/runtime/Error.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace isthmus;

/// The shape of Llama-3-8B, for measuring the compiler without its weights.
static import::Config llama3Shape(int64_t layers) {
  import::Config c;
  c.name = "generated-llama-3-8b";
  c.architecture = "llama";
  c.layers = layers;
  c.hidden = 4096;
  c.feedForward = 14336;
  c.vocab = 128256;
  c.heads = 32;
  c.kvHeads = 8;
  c.headDim = 128;
  c.contextLength = 8192;
  c.ropeTheta = 500000;
  return c;
}

static int run(int argc, char **argv) {
  CLI::App app{
      "Compile a model for the devices of a topology into a bundle.\n\n"
      "Example:\n"
      "  isthmus compile SmolLM2-135M-Instruct.gguf --weights int4 \\\n"
      "      --topology examples/topologies/board-and-server.yaml -o "
      "smol.isth\n"};
  app.name("isthmus compile");
  std::string model, topologyFile, output, target;
  CompileOptions options;
  bool json = false;
  uint64_t seed = 0;
  int64_t generatedLayers = 32;
  app.add_option(
         "MODEL", model,
         "a GGUF file, a Hugging Face folder, or 'generated:llama-3-8b'")
      ->required();
  app.add_option("--topology", topologyFile,
                 "devices and links (default: this host)")
      ->check(CLI::ExistingFile);
  app.add_option("--target", target,
                 "target of the host device (default: what this machine has)");
  app.add_option("--weights", options.weights, "how weights are stored")
      ->check(CLI::IsMember({"f32", "f16", "int8", "int4"}))
      ->capture_default_str();
  app.add_option("--prune", options.prune, "set small weights to zero")
      ->check(CLI::IsMember({"2:4", "unstructured"}));
  app.add_option("--sparsity", options.sparsity,
                 "fraction for --prune unstructured")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str();
  app.add_option("--kv", options.kv,
                 "how the KV cache is stored (default: f32 with f32 weights, "
                 "else f16)")
      ->check(CLI::IsMember({"f32", "f16"}));
  app.add_option("--kv-budget", options.kvBudget,
                 "positions of KV cache a sequence attends to")
      ->check(CLI::Range(8, 1 << 24));
  app.add_option(
         "--context", options.contextTokens,
         "tokens of KV cache to plan for (default: the model's, at most "
         "4096)")
      ->check(CLI::Range(32, 1 << 24));
  app.add_option("--threads", options.threads, "threads for packing weights");
  app.add_option("--seed", seed, "seed of generated weights");
  app.add_option("--layers", generatedLayers, "layers of a generated model");
  app.add_option("--dump-ir", options.dumpIR,
                 "write the model after all fm passes to this file");
  app.add_option("-o,--output", output, "the bundle to write")->required();
  app.add_flag("--json", json, "print the report as JSON");
  CLI11_PARSE(app, argc, argv);

  const bool terminal = isatty(STDERR_FILENO);
  std::string lastStage;
  options.progress = [&](const std::string &stage, double fraction) {
    if (terminal)
      fmt::print(stderr, "\r\033[K{:<8} {:3.0f} %", stage, fraction * 100);
    else if (stage != lastStage)
      fmt::print(stderr, "{}\n", stage);
    lastStage = stage;
  };
  Topology topology =
      topologyFile.empty() ? hostTopology() : readTopology(topologyFile);
  if (!target.empty()) {
    if (!findTarget(target))
      throw rt::Error("unknown target '{}'", target);
    topology.targets.assign(topology.targets.size(), target);
  }
  import::Checkpoint checkpoint =
      model == "generated:llama-3-8b"
          ? import::generateCheckpoint(llama3Shape(generatedLayers), seed)
          : import::openCheckpoint(model);
  if (checkpoint.config.name.empty())
    checkpoint.config.name = std::filesystem::path(model).stem().string();
  CompileReport report = compile(checkpoint, topology, options, output);
  if (terminal)
    fmt::print(stderr, "\r\033[K");
  if (json) {
    nlohmann::json out = {{"bundle", output},
                          {"seconds", report.seconds},
                          {"weight_seconds", report.weightSeconds},
                          {"bundle_bytes", report.bundleBytes},
                          {"peak_resident_bytes", report.peakResidentBytes}};
    fmt::print("{}\n", out.dump());
  } else {
    fmt::print("{}: {:.1f} MB, compiled in {:.1f} s (weights {:.1f} s), peak "
               "resident memory {:.0f} MB\n",
               output, double(report.bundleBytes) / 1e6, report.seconds,
               report.weightSeconds, double(report.peakResidentBytes) / 1e6);
  }
  return 0;
}

int main(int argc, char **argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception &error) {
    fmt::print(stderr, "{}isthmus: error: {}\n",
               isatty(STDERR_FILENO) ? "\r\033[K" : "", error.what());
    return 1;
  }
}
