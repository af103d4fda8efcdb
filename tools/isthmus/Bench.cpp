//===- Bench.cpp - 'isthmus bench' ----------------------------------------===//
#include "../Sequences.h"
#include "Commands.h"
#include "Encoders.h"
#include "Graphs.h"
#include "Profiler.h"

#include "isthmus/runtime/Error.h"

#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace isthmus;
using namespace isthmus::cli;
using nlohmann::json;

namespace {
struct Options {
  SessionOptions session;
  uint64_t prompt = 512, generate = 128, depth = 0, repetitions = 5, batch = 1;
  std::string trace, encoder;
  std::vector<std::string> shapes, inputs;
  bool json = false, profile = false;
};

void run(const Options &o, rt::Bundle bundle, SessionOptions sessionOptions) {
  const uint64_t longest = o.depth + std::max(o.prompt, o.generate) + 32;
  if (sessionOptions.context == 0)
    sessionOptions.context = (longest + rt::kPagePositions) /
                             rt::kPagePositions * rt::kPagePositions * o.batch;
  sessionOptions.outputs = std::max<uint64_t>(sessionOptions.outputs, o.batch);
  Session session(std::move(bundle), sessionOptions);
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
  auto goToDepth = [&](uint64_t seed) {
    if (o.depth)
      sequences.prefill(someIds(o.depth, vocab, seed));
  };
  std::vector<double> prefill, decode;
  for (uint64_t r = 0; r <= o.repetitions; ++r) { // the first warms up
    if (profiler)
      profiler->probe(session.bundle);
    if (o.prompt) {
      auto ids = someIds(o.prompt, vocab, r);
      sequences.restart(r);
      goToDepth(r + 1);
      double seconds = secondsOf([&] { sequences.prefill(ids); });
      if (profiler && r > 0)
        profiler->add(prefillProfile); // the last chunk of the last sequence
      if (r > 0)
        prefill.push_back(double(o.prompt * o.batch) / seconds);
    }
    if (o.generate) {
      sequences.restart(r + 99);
      goToDepth(r);
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
    if (profiler->limits.measures(bundle::Cost::BF16X1))
      out["limits"]["bf16_matrix_ops_s"] =
          profiler->limits.opsPerSecond(bundle::Cost::BF16X1);
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
    fmt::print("prefill {:5} tokens at {}: {:8.1f} tokens/s\n", o.prompt,
               o.depth, median(prefill));
  if (!decode.empty())
    fmt::print("decode  {:5} tokens at {}: {:8.1f} tokens/s{}\n", o.generate,
               o.depth, median(decode),
               o.batch > 1 ? fmt::format(" over {} sequences", o.batch) : "");
  if (!o.profile)
    return;
  printLimits(profiler->limits);
  if (prefillProfile.steps())
    printProfile("prefill", prefillProfile);
  if (decodeProfile.steps())
    printProfile("decode", decodeProfile);
}

/// Encoders: whole batches of texts of `prompt` tokens, or of images.
void runEncoder(const Options &o, Encoders &encoders) {
  rt::Encoder &encoder = encoders.takesImages() && o.encoder != "text"
                             ? encoders.image()
                             : encoders.text();
  const rt::ModelInfo &info = encoder.info();
  std::vector<rt::Encoder::Sequence> sequences(o.batch);
  const uint64_t length = std::min(o.prompt, info.contextLength);
  for (uint64_t i = 0; i < o.batch; ++i)
    if (info.inputFeatures)
      for (int32_t id :
           someIds(info.contextLength * info.inputFeatures, 256, i))
        sequences[i].values.push_back(float(id) / 128 - 1);
    else
      sequences[i].ids = someIds(length, info.vocabSize, i);
  std::optional<Profiler> profiler;
  rt::Profile profile;
  if (o.profile || !o.trace.empty())
    profiler.emplace(encoder.local());
  std::vector<double> seconds;
  for (uint64_t r = 0; r <= o.repetitions; ++r) { // the first warms up
    if (profiler)
      profiler->probe(encoders.bundle);
    const double taken = secondsOf([&] { encoder.run(sequences); });
    if (r == 0)
      continue;
    seconds.push_back(taken);
    if (profiler)
      profiler->add(profile); // the last step of the batch
  }
  if (!o.trace.empty() && !(std::ofstream(o.trace) << profiler->trace()))
    throw rt::Error("{}: cannot write", o.trace);
  const double taken = median(seconds);
  const std::string &program = encoder.program().name();
  json out = {{"target", encoder.local().kernels().target()},
              {"program", program},
              {"batch", o.batch},
              {"repetitions", o.repetitions},
              {"seconds", taken},
              {"sequences_s", double(o.batch) / taken}};
  if (profiler)
    out["profile"] = toJson(profile);
  if (o.json)
    return fmt::print("{}\n", out.dump());
  fmt::print("{} x {}: {:.3f} ms, {:.1f} a second\n", o.batch,
             info.inputFeatures ? "one image"
                                : fmt::format("a text of {} tokens", length),
             taken * 1e3, double(o.batch) / taken);
  if (!o.profile)
    return;
  printLimits(profiler->limits);
  printProfile(program, profile);
}
} // namespace

void cli::addBench(CLI::App &app) {
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "bench",
      "Measure the speed of prefill and decode, of an encoder or a graph "
      "(medians)\n\n"
      "Example:\n  isthmus bench smol.isth -p 512 -n 128 --threads 2 "
      "--profile\n"
      "  isthmus bench vit.isth --batch 16\n"
      "  isthmus bench graph.isth --shape x=1,3,224,224 --profile\n");
  o->session.addTo(*command);
  command
      ->add_option(
          "-p", o->prompt,
          "prompt tokens; 0 skips prefill. Of an encoder: of each text")
      ->capture_default_str();
  command->add_option("-n", o->generate, "tokens to generate; 0 skips decode")
      ->capture_default_str();
  command
      ->add_option("--depth", o->depth,
                   "tokens of context before what is timed")
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
  command
      ->add_option("--encoder", o->encoder,
                   "of a model with two: 'image' (default) or 'text'")
      ->check(CLI::IsMember({"image", "text"}));
  command
      ->add_option_function<std::string>(
          "--shape",
          [o](const std::string &text) { o->shapes.push_back(text); },
          "sizes of an ONNX graph's input: NAME=1,3,224,224")
      ->trigger_on_parse();
  command
      ->add_option_function<std::string>(
          "--input",
          [o](const std::string &text) { o->inputs.push_back(text); },
          "values of an ONNX graph's input: NAME=FILE.npy")
      ->trigger_on_parse();
  command->callback([o] {
    rt::Bundle bundle = openTrusted(o->session.bundle);
    if (isGraph(bundle))
      return benchGraph(
          std::move(bundle), o->session,
          {o->shapes, o->inputs, o->repetitions, o->profile, o->json});
    if (isGenerator(bundle))
      return run(*o, std::move(bundle), o->session);
    Encoders encoders(std::move(bundle), o->session);
    runEncoder(*o, encoders);
  });
}
