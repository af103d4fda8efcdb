//===- isthmus-compile.cpp - what needs the compiler ----------------------===//
//
// 'isthmus compile', and 'isthmus tune' as 'isthmus-compile tune'.
//
//===----------------------------------------------------------------------===//
#include "../Completion.h"
#include "../Sizes.h"
#include "Tune.h"
#include "isthmus/Driver/Compile.h"
#include "isthmus/Driver/TunedSchedule.h"
#include "isthmus/Import/Generate.h"
#include "isthmus/runtime/Error.h"

#include <CLI/CLI.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace isthmus;

namespace {
/// Shapes of Llama 3 for measuring compiler and kernels without their weights.
const import::GeneratedShape kShapes[] = {
    {"llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, 128256, true},
    {"llama-3.2-3b", 28, 3072, 8192, 24, 8, 128, 128256, true},
    {"llama-3-8b", 32, 4096, 14336, 32, 8, 128, 128256, false},
};
constexpr const char *kGenerated = "generated:";
} // namespace

static import::Checkpoint generate(const std::string &name, int64_t layers,
                                   uint64_t seed) {
  std::string known;
  for (import::GeneratedShape shape : kShapes) {
    known += fmt::format(" {}{}", kGenerated, shape.name);
    if (name != shape.name)
      continue;
    if (layers)
      shape.layers = layers;
    return import::generateCheckpoint(shape, seed);
  }
  throw rt::Error("unknown shape '{}'; known:{}", name, known);
}

/// What `option` says for each target: its own schedule ("default"), the tuned
/// one if there is any ("tuned"), or that of a file.
static std::map<std::string, std::string>
readSchedules(const std::string &option, const Topology &topology) {
  std::map<std::string, std::string> schedules;
  if (option == "default")
    return schedules;
  const auto targets = targetsOf(topology);
  const bool tuned = option == "tuned";
  if (!tuned && targets.size() > 1)
    throw rt::Error("{}: a file holds the schedule of one target, and the "
                    "bundle is for {}; --schedule tuned takes each one's own",
                    option, targets.size());
  for (const TargetDescription *target : targets) {
    auto found = readTunedSchedule(tuned ? tunedSchedulePath(target->name)
                                         : std::filesystem::path(option),
                                   *target);
    if (!found && !tuned)
      throw rt::Error("{}: no such file; 'isthmus tune -o' makes one", option);
    if (found && !(found->best == target->schedule))
      schedules[target->name] = toString(found->best);
  }
  return schedules;
}

/// NAME=1,3,224,224, for several inputs.
static std::map<std::string, std::vector<int64_t>>
parseShapes(const std::vector<std::string> &texts) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const std::string &text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos)
      throw rt::Error("'{}' is not NAME=SIZES", text);
    shapes[text.substr(0, equals)] = cli::parseSizes(text.substr(equals + 1));
  }
  return shapes;
}

static import::Checkpoint openModel(const std::string &model,
                                    int64_t generatedLayers, uint64_t seed) {
  import::Checkpoint checkpoint =
      model.starts_with(kGenerated)
          ? generate(model.substr(std::strlen(kGenerated)), generatedLayers,
                     seed)
          : import::openCheckpoint(model);
  if (checkpoint.name.empty())
    checkpoint.name = std::filesystem::path(model).stem().string();
  if (!checkpoint.tokenizer.unsupported.empty())
    fmt::print(stderr, "warning: {}: {}. The bundle takes token ids only\n",
               model, checkpoint.tokenizer.unsupported);
  return checkpoint;
}

static int run(int argc, char **argv) {
  CLI::App app{
      "Compile a model for the devices of a topology into a bundle.\n\n"
      "Example:\n"
      "  isthmus compile SmolLM2-135M-Instruct.gguf --weights int4 \\\n"
      "      --topology examples/topologies/board-and-server.yaml -o "
      "smol.isth\n"};
  app.name("isthmus compile");
  std::string model, topologyFile, output, target, schedule = "tuned";
  CompileOptions options;
  bool json = false;
  uint64_t seed = 0;
  int64_t generatedLayers = 0;
  app.add_option(
         "MODEL", model,
         "a GGUF file, a Hugging Face folder, an .onnx file (what is no "
         "decoder runs as a graph of tensors: --weights and what "
         "follows it do not count), or "
         "generated:llama-3.2-1b, "
         "generated:llama-3.2-3b, generated:llama-3-8b")
      ->required();
  app.add_option("--topology", topologyFile,
                 "devices and links (default: this host)")
      ->check(CLI::ExistingFile);
  app.add_option("--target", target,
                 "targets of all devices, separated by commas; each runs the "
                 "best it can (default: the topology's, or what this machine "
                 "has)");
  app.add_option("--schedule", schedule,
                 "how kernels are cut: 'tuned' as 'isthmus tune' found for the "
                 "target, 'default', or a file that it made")
      ->capture_default_str();
  const CLI::Option *weights =
      app.add_option(
             "--weights", options.weights,
             "how weights are stored (default: file for a GGUF file that "
             "is not pruned, else int4); file: as they are, floats or "
             "blocks of GGUF; int8-row, int7-row, int4-row: with a scale a "
             "row, "
             "not a group, faster for many rows and less exact; int7, "
             "int7-row: bytes within +-64, less exact than int8, faster "
             "for many rows with AVX2 and no VNNI")
          ->check(
              CLI::IsMember({"file", "f32", "f16", "bf16", "int8", "int8-row",
                             "int7", "int7-row", "int4", "int4-row"}));
  app.add_option(
         "--products", options.products,
         "how products with f32 and bf16 weights and a bf16 cache are made; "
         "vector: with the same bits on all targets; matrix: in a matrix unit, "
         "faster for many rows (f32 as six products of bf16, as exact); auto: "
         "in a matrix unit where all targets have one, with f32 weights for "
         "images of 128 rows and more alone")
      ->check(CLI::IsMember({"auto", "vector", "matrix"}))
      ->capture_default_str();
  app.add_option("--prune", options.prune, "set small weights to zero")
      ->check(CLI::IsMember({"2:4", "unstructured"}));
  app.add_option("--sparsity", options.sparsity,
                 "fraction for --prune unstructured")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str();
  app.add_option("--kv", options.kv,
                 "how the KV cache is stored (default: f32 or f16 with weights "
                 "of that format, int8 in encoders with integers, else "
                 "bf16)")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "int8"}));
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
  app.add_option("--layers", generatedLayers,
                 "layers of a generated model (default: the shape's)");
  std::vector<std::string> shapes;
  app.add_option_function<std::string>(
         "--shape", [&](const std::string &text) { shapes.push_back(text); },
         "of an .onnx file: sizes that an input always has, "
         "NAME=1,3,224,224")
      ->trigger_on_parse();
  app.add_flag("--graph", options.asGraph,
               "of an .onnx file: tensors go in and out, caches too, even if "
               "it is a decoder");
  app.add_option("--dump-ir", options.dumpIR,
                 "write the model after all fm passes to this file");
  app.add_option("-o,--output", output, "the bundle to write")->required();
  app.add_flag("--json", json, "print the report as JSON");
  if (argc > 1 && std::string_view(argv[1]) == "complete")
    return cli::printCompletions(app, {argv + 2, argv + argc});
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
  if (!target.empty())
    topology.targets.assign(topology.targets.size(), parseTargets(target));
  options.schedules = readSchedules(schedule, topology);
  for (const auto &[name, text] : options.schedules)
    fmt::print(stderr, "schedule for {}: {}\n", name, text);
  CompileReport report;
  if (std::filesystem::path(model).extension() == ".onnx") {
    import::OnnxModel graph =
        import::readOnnx(model, {false, parseShapes(shapes)});
    report = compile(graph, topology, options, output);
  } else {
    const import::Checkpoint checkpoint =
        openModel(model, generatedLayers, seed);
    // (What pruning changes is no longer as the file has it.)
    if (weights->empty() && checkpoint.isGGUF && options.prune.empty())
      options.weights = "file";
    report = compile(checkpoint, topology, options, output);
  }
  if (terminal)
    fmt::print(stderr, "\r\033[K");
  if (!report.notRaised.empty())
    fmt::print(stderr,
               "note: {} runs as a graph of tensors, not as a decoder: {}\n",
               model, report.notRaised);
  if (json) {
    nlohmann::json out = {{"bundle", output},
                          {"seconds", report.seconds},
                          {"weight_seconds", report.weightSeconds},
                          {"bundle_bytes", report.bundleBytes},
                          {"peak_resident_bytes", report.peakResidentBytes}};
    if (!report.notRaised.empty())
      out["not_raised"] = report.notRaised;
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
    if (argc > 1 && std::string_view(argv[1]) == "tune")
      return cli::tune(argc - 1, argv + 1);
    return run(argc, argv);
  } catch (const std::exception &error) {
    fmt::print(stderr, "{}isthmus: error: {}\n",
               isatty(STDERR_FILENO) ? "\r\033[K" : "", error.what());
    return 1;
  }
}
