//===- Bench.cpp - 'isthmus bench' ----------------------------------------===//
#include "../Sequences.h"
#include "Commands.h"
#include "Session.h"

#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Profile.h"

#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace isthmus;
using namespace isthmus::cli;
using nlohmann::json;

namespace {
/// Profiles one kind of step, with the limits of the machine measured between
/// the steps, so that both see the same neighbours.
class Profiler {
public:
  explicit Profiler(rt::LocalRunner &runner)
      : limits(runner.kernels(), runner.threads()), runner(runner) {
    for (const auto &executor : runner.executors())
      executor->record();
  }

  rt::MachineLimits limits;

  /// Reads the weights from first to last, which is what a step of one row does
  /// and finds in the caches what that finds.
  void probe(const rt::Bundle &bundle) {
    for (const auto &executor : runner.executors()) {
      const std::byte *first = nullptr, *end = nullptr;
      for (uint32_t weight : executor->stage().weights) {
        auto bytes = bundle.weight(weight);
        if (!first || bytes.data() < first)
          first = bytes.data();
        end = std::max(end, bytes.data() + bytes.size());
      }
      for (int pass = 0; pass < 3; ++pass)
        limits.probeRead({first, end});
    }
    limits.probeArithmetic();
  }

  void add(rt::Profile &profile) {
    for (const auto &executor : runner.executors())
      profile.add(*executor, runner.lastStep(), limits);
  }

  std::string trace() const {
    std::string events = "{\"traceEvents\":[";
    int process = 0;
    for (const auto &executor : runner.executors())
      rt::appendTrace(*executor, process++, events);
    return events + "]}\n";
  }

private:
  rt::LocalRunner &runner;
};

json toJson(const rt::Profile &profile) {
  json kernels = json::array();
  for (const auto &[name, entry] : profile.entries())
    kernels.push_back({{"kernel", name},
                       {"launches", entry.launches},
                       {"seconds", entry.seconds},
                       {"bytes", entry.cost.bytes},
                       {"ops", entry.cost.ops},
                       {"roofline", entry.limitSeconds / entry.seconds}});
  return {{"steps", profile.steps()},
          {"seconds", profile.seconds()},
          {"roofline", profile.limitSeconds() / profile.seconds()},
          {"kernels", kernels}};
}

void printProfile(const std::string &title, const rt::Profile &profile) {
  auto steps = double(profile.steps());
  fmt::print("{}: {:.0f} us a step, {:.0f} % of the roofline\n", title,
             profile.seconds() / steps * 1e6,
             100 * profile.limitSeconds() / profile.seconds());
  fmt::print("  {:<44} {:>5} {:>9} {:>6} {:>8} {:>8} {:>9}\n", "kernel",
             "calls", "us/step", "share", "GB/s", "Gop/s", "roofline");
  std::vector<std::pair<std::string, rt::Profile::Entry>> sorted(
      profile.entries().begin(), profile.entries().end());
  std::sort(sorted.begin(), sorted.end(), [](const auto &a, const auto &b) {
    return a.second.seconds > b.second.seconds;
  });
  double inKernels = 0;
  for (const auto &[name, e] : sorted) {
    inKernels += e.seconds;
    fmt::print("  {:<44} {:>5.0f} {:>9.1f} {:>4.1f} % {:>8.1f} {:>8.1f} "
               "{:>7.0f} %\n",
               name, double(e.launches) / steps, e.seconds / steps * 1e6,
               100 * e.seconds / profile.seconds(),
               double(e.cost.bytes) / e.seconds * 1e-9,
               double(e.cost.ops) / e.seconds * 1e-9,
               100 * e.limitSeconds / e.seconds);
  }
  // Launches that overlap count twice: the rest can be negative.
  double rest = profile.seconds() - inKernels;
  fmt::print("  {:<44} {:>5} {:>9.1f} {:>4.1f} %\n", "(barriers and gaps)", "",
             rest / steps * 1e6, 100 * rest / profile.seconds());
}

struct Options {
  SessionOptions session;
  uint64_t prompt = 512, generate = 128, depth = 0, repetitions = 5, batch = 1;
  std::string trace;
  bool json = false, profile = false;
};

void run(const Options &o, SessionOptions sessionOptions) {
  const uint64_t longest = std::max(o.prompt, o.depth + o.generate) + 32;
  if (sessionOptions.context == 0)
    sessionOptions.context = (longest + rt::kPagePositions) /
                             rt::kPagePositions * rt::kPagePositions * o.batch;
  sessionOptions.outputs = std::max<uint64_t>(sessionOptions.outputs, o.batch);
  Session session(sessionOptions);
  if (longest * o.batch > session.runner->info().pages * rt::kPagePositions)
    throw rt::Error("{} positions are more than the {} reserved; raise "
                    "--context",
                    longest * o.batch,
                    session.runner->info().pages * rt::kPagePositions);
  const uint64_t vocab = session.runner->info().vocabSize;
  Sequences sequences(*session.runner, o.batch);
  std::optional<Profiler> profiler;
  rt::Profile prefillProfile, decodeProfile;
  std::string trace;
  if (o.profile || !o.trace.empty())
    profiler.emplace(*session.local);
  std::vector<double> prefill, decode;
  for (uint64_t r = 0; r <= o.repetitions; ++r) { // the first warms up
    if (profiler)
      profiler->probe(session.bundle);
    if (o.prompt) {
      auto ids = someIds(o.prompt, vocab, r);
      sequences.restart(r);
      double seconds = secondsOf([&] { sequences.prefill(ids); });
      if (profiler && r > 0)
        profiler->add(prefillProfile); // the last chunk of the last sequence
      if (r > 0)
        prefill.push_back(double(o.prompt * o.batch) / seconds);
    }
    if (o.generate) {
      sequences.restart(r + 99);
      if (o.depth)
        sequences.prefill(someIds(o.depth, vocab, r));
      double seconds = 0;
      for (uint64_t i = 0; i < o.generate; ++i) {
        seconds += secondsOf([&] { sequences.decode(); });
        if (profiler && r > 0)
          profiler->add(decodeProfile);
      }
      if (profiler)
        trace = profiler->trace();
      if (r > 0)
        decode.push_back(double(o.generate * o.batch) / seconds);
    }
    if (isatty(STDERR_FILENO))
      fmt::print(stderr, "\r\033[Krepetition {} of {}", r, o.repetitions);
  }
  if (isatty(STDERR_FILENO))
    fmt::print(stderr, "\r\033[K");
  if (!o.trace.empty() && !(std::ofstream(o.trace) << trace))
    throw rt::Error("{}: cannot write", o.trace);

  const std::string &target = session.local->kernels().target();
  json out = {{"target", target},
              {"depth", o.depth},
              {"repetitions", o.repetitions},
              {"batch", o.batch}};
  if (!prefill.empty())
    out["prefill_tok_s"] = median(prefill);
  if (!decode.empty())
    out["decode_tok_s"] = median(decode);
  if (profiler) {
    out["limits"] = {
        {"bytes_s", profiler->limits.bytesPerSecond()},
        {"f32_ops_s", profiler->limits.opsPerSecond(bundle::Cost::F32)},
        {"bf16_ops_s", profiler->limits.opsPerSecond(bundle::Cost::BF16)},
        {"int8_ops_s", profiler->limits.opsPerSecond(bundle::Cost::INT8)}};
    out["profile"] = json::object();
    if (prefillProfile.steps())
      out["profile"]["prefill"] = toJson(prefillProfile);
    if (decodeProfile.steps())
      out["profile"]["decode"] = toJson(decodeProfile);
  }
  if (o.json) {
    fmt::print("{}\n", out.dump());
    return;
  }
  fmt::print("kernels for {}\n", target);
  if (!prefill.empty())
    fmt::print("prefill {:5} tokens: {:8.1f} tokens/s\n", o.prompt,
               median(prefill));
  if (!decode.empty())
    fmt::print("decode  {:5} tokens at {}: {:8.1f} tokens/s{}\n", o.generate,
               o.depth, median(decode),
               o.batch > 1 ? fmt::format(" over {} sequences", o.batch) : "");
  if (!o.profile)
    return;
  fmt::print("limits: {:.1f} GB/s, {:.0f} Gop/s f32, {:.0f} bf16, {:.0f} "
             "int8\n",
             profiler->limits.bytesPerSecond() * 1e-9,
             profiler->limits.opsPerSecond(bundle::Cost::F32) * 1e-9,
             profiler->limits.opsPerSecond(bundle::Cost::BF16) * 1e-9,
             profiler->limits.opsPerSecond(bundle::Cost::INT8) * 1e-9);
  if (prefillProfile.steps())
    printProfile("prefill", prefillProfile);
  if (decodeProfile.steps())
    printProfile("decode", decodeProfile);
}
} // namespace

void cli::addBench(CLI::App &app) {
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "bench", "Measure prefill and decode speed (medians)\n\nExample:\n  "
               "isthmus bench smol.isth -p 512 -n 128 --threads 2 --profile\n");
  o->session.addTo(*command);
  command->add_option("-p", o->prompt, "prompt tokens; 0 skips prefill")
      ->capture_default_str();
  command->add_option("-n", o->generate, "tokens to generate; 0 skips decode")
      ->capture_default_str();
  command
      ->add_option("--depth", o->depth,
                   "tokens of context before decode is timed")
      ->capture_default_str();
  command->add_option("--batch", o->batch, "sequences at once")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  command->add_option("-r,--repetitions", o->repetitions)
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--profile", o->profile,
                    "time, bytes, operations and share of the roofline for "
                    "each kernel; the limits are measured in between");
  command->add_option("--trace", o->trace,
                      "write the last decode step for ui.perfetto.dev");
  command->add_flag("--json", o->json, "print JSON");
  command->callback([o] { run(*o, o->session); });
}
