//===- Tune.cpp - the 'isthmus tune' command ------------------------------===//
#include "Tune.h"

#include "../Completion.h"
#include "../Sequences.h"
#include "isthmus/Driver/Compile.h"
#include "isthmus/Driver/TunedSchedule.h"
#include "isthmus/Import/Generate.h"
#include "isthmus/runtime/CpuFeatures.h"
#include "isthmus/runtime/Error.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace isthmus;
namespace fs = std::filesystem;

namespace {
/// A folder that is removed with its contents.
class TemporaryFolder {
public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "isthmus-tune-XXXXXX");
    if (!mkdtemp(name.data()))
      throw rt::Error("{}: cannot create a temporary folder", name);
    path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

/// Times schedules on a model with generated weights: one that leaves the
/// caches, with the shapes of a small decoder.
class Comparison {
public:
  Comparison(const TargetDescription &target, int64_t layers, unsigned threads)
      : target(target), threads(threads), topology(hostTopology()) {
    topology.targets = {target.name};
    checkpoint = import::generateCheckpoint({.name = "for-tuning",
                                             .layers = layers,
                                             .hidden = 1024,
                                             .feedForward = 2816,
                                             .heads = 16,
                                             .kvHeads = 4,
                                             .headDim = 64,
                                             .vocabulary = 4096,
                                             .tied = true},
                                            /*seed=*/1);
  }

  /// The geometric mean over the field's weights; a candidate that makes any of
  /// them slower is as bad as that.
  double operator()(const ScheduleField &field, const KernelSchedule &best,
                    const KernelSchedule &candidate) {
    double logs = 0, worst = 0;
    for (const char *weights : field.weights) {
      Model a(*this, weights, best), b(*this, weights, candidate);
      std::vector<double> ratios;
      // The first pair warms up; then they take turns.
      for (int r = 0; r <= kRepetitions; ++r) {
        const double before = a.seconds(field.regime);
        const double ratio = b.seconds(field.regime) / before;
        if (r > 0)
          ratios.push_back(ratio);
      }
      const double ratio = cli::median(ratios);
      logs += std::log(ratio);
      worst = std::max(worst, ratio);
    }
    constexpr double kNoise = 1.02;
    return worst > kNoise ? worst
                          : std::exp(logs / double(field.weights.size()));
  }

private:
  static constexpr int kRepetitions = 9;
  static constexpr int kPrefillTokens = 192, kDecodeTokens = 12;

  /// A compiled bundle, loaded.
  class Model {
  public:
    Model(Comparison &owner, const char *weights,
          const KernelSchedule &schedule)
        : bundle(owner.compiled(weights, schedule)),
          runner(bundle, optionsFor(owner)), sequences(runner, 1) {}

    double seconds(ScheduleField::Regime regime) {
      auto ids = cli::someIds(kPrefillTokens, runner.info().vocabSize, 1);
      sequences.restart(1);
      if (regime == ScheduleField::Prefill)
        return cli::secondsOf([&] { sequences.prefill(ids); });
      sequences.prefill(std::span(ids).first(32));
      return cli::secondsOf([&] {
        for (int i = 0; i < kDecodeTokens; ++i)
          sequences.decode();
      });
    }

  private:
    static rt::LocalOptions optionsFor(const Comparison &owner) {
      rt::LocalOptions options;
      options.threads = owner.threads;
      options.contextTokens = 256;
      return options;
    }

    rt::Bundle bundle;
    rt::LocalRunner runner;
    cli::Sequences sequences;
  };

  fs::path compiled(const char *weights, const KernelSchedule &schedule) {
    auto [entry, isNew] =
        bundles.try_emplace(std::string(weights) + ":" + toString(schedule),
                            folder.path / std::to_string(bundles.size()));
    if (isNew) {
      CompileOptions options;
      options.weights = weights;
      options.contextTokens = 256;
      options.schedules[target.name] = toString(schedule);
      compile(checkpoint, topology, options, entry->second);
    }
    return entry->second;
  }

  const TargetDescription &target;
  unsigned threads;
  Topology topology;
  import::Checkpoint checkpoint;
  TemporaryFolder folder;
  std::map<std::string, fs::path> bundles;
};

/// What a search finds, line by line.
void printField(const ScheduleField &field, const ScheduleSearch &search,
                const KernelSchedule &before) {
  fmt::print("{:<18} {:>7}", field.name, before.*field.value);
  for (const ScheduleTrial &trial : search.trials)
    if (trial.field == field.name)
      fmt::print("  {}: {:.2f}", trial.value, trial.ratio);
  if (search.best.*field.value != before.*field.value)
    fmt::print("  -> {}", search.best.*field.value);
  fmt::print("\n");
  std::fflush(stdout);
}
} // namespace

int cli::tune(int argc, char **argv) {
  CLI::App app{
      "Search the kernel schedule that is fastest on this machine: tile sizes, "
      "unrolling, prefetches. 'isthmus compile' uses what it finds. Takes a "
      "few "
      "minutes; an interrupted search goes on where it was. No result of a "
      "model changes by a bit.\n\n"
      "Each line is a choice with its value, and for other values the time "
      "they took compared with the best so far.\n\n"
      "Example:\n"
      "  isthmus tune && isthmus compile model.gguf -o model.isth\n"};
  app.name("isthmus tune");
  std::string name = hostTarget().name, output;
  std::vector<std::string> only;
  int64_t layers = 8;
  unsigned threads = 0;
  bool restart = false, json = false;
  app.add_option("--target", name, "a target that this machine can run")
      ->capture_default_str();
  app.add_option("-o,--output", output,
                 "where to keep the schedule (default: beside the keys)");
  std::vector<std::string> fields;
  for (const ScheduleField &field : scheduleFields())
    fields.push_back(field.name);
  app.add_option("--only", only, "choices to search (default: all)")
      ->delimiter(',')
      ->check(CLI::IsMember(fields));
  app.add_option("--layers", layers, "layers of the generated model")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--threads", threads, "threads (default: all processors)");
  app.add_flag("--restart", restart, "forget what was found");
  app.add_flag("--json", json, "print the schedule as JSON when finished");
  if (argc > 1 && std::string_view(argv[1]) == "complete")
    return cli::printCompletions(app, {argv + 2, argv + argc});
  CLI11_PARSE(app, argc, argv);

  const TargetDescription *target = findTarget(parseTargets(name));
  std::string missing;
  if (!target ||
      !rt::cpuSupports(target->triple, target->requiredCpuFlags, &missing))
    throw rt::Error("{}: one target that this machine can run is needed{}",
                    name, missing.empty() ? "" : "; it lacks " + missing);
  const fs::path path =
      output.empty() ? tunedSchedulePath(target->name) : fs::path(output);
  ScheduleSearch search;
  search.best = target->schedule;
  if (!restart)
    if (auto stored = readTunedSchedule(path, *target))
      search = std::move(*stored);
  std::vector<std::string> skipped;
  for (const std::string &field : fields)
    if (!only.empty() && std::ranges::find(only, field) == only.end() &&
        std::ranges::find(search.finished, field) == search.finished.end())
      skipped.push_back(field);
  search.finished.insert(search.finished.end(), skipped.begin(), skipped.end());

  Comparison comparison(*target, layers, threads);
  const bool terminal = isatty(STDERR_FILENO);
  KernelSchedule before = search.best;
  searchSchedule(
      *target, search, std::ref(comparison),
      [&](const ScheduleField &field, const std::vector<int64_t> &candidates) {
        if (!candidates.empty()) {
          fmt::print(stderr, "{}[{}/{}] {}: {} against {}{}",
                     terminal ? "\r\033[K" : "", search.finished.size() + 1,
                     fields.size(), field.name, fmt::join(candidates, ", "),
                     search.best.*field.value, terminal ? "" : "\n");
          return;
        }
        if (terminal)
          fmt::print(stderr, "\r\033[K");
        if (!json)
          printField(field, search, before);
        before = search.best;
        ScheduleSearch kept = search;
        std::erase_if(kept.finished, [&](const std::string &done) {
          return std::ranges::find(skipped, done) != skipped.end();
        });
        writeTunedSchedule(path, *target, kept);
      });
  if (json)
    fmt::print("{}\n", nlohmann::json{{"target", target->name},
                                      {"file", path.string()},
                                      {"schedule", toString(search.best)}}
                           .dump());
  else
    fmt::print("{}: {}\nkept in {}\n", target->name, toString(search.best),
               path.string());
  return 0;
}
