//===- Measure.cpp - 'isthmus eval' and 'logits' --------------------------===//
#include "Commands.h"
#include "Session.h"

#include "isthmus/runtime/Engine.h"
#include "isthmus/runtime/Error.h"

#include <chrono>
#include <cmath>
#include <fstream>
#include <future>
#include <iostream>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace isthmus;
using namespace isthmus::cli;

void cli::addEval(CLI::App &app) {
  struct Options {
    SessionOptions session;
    std::string text;
    uint64_t chunk = 512, chunks = 64;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "eval",
      "Perplexity over a text, as llama-perplexity counts it: chunks of "
      "512 tokens, the second half of each scored\n\nExample:\n  isthmus "
      "eval smol.isth --text wikitext2-valid.txt --json\n");
  o->session.addTo(*command);
  command->add_option("--text", o->text, "a UTF-8 text file")->required();
  command->add_option("--chunk", o->chunk, "tokens in a chunk")
      ->check(CLI::Range(4, 1 << 20))
      ->capture_default_str();
  command->add_option("--chunks", o->chunks, "most chunks; 0: all")
      ->capture_default_str();
  command->add_flag("--json", o->json, "print JSON");
  command->callback([o] {
    o->session.context = std::max<uint64_t>(o->session.context, o->chunk);
    Session session(o->session);
    rt::MappedFile file(o->text);
    std::string_view text(reinterpret_cast<const char *>(file.bytes().data()),
                          file.bytes().size());
    std::vector<int32_t> ids = session.needTokenizer().encode(text);
    uint64_t count = ids.size() / o->chunk;
    if (o->chunks)
      count = std::min(count, o->chunks);
    if (count == 0)
      throw rt::Error("{}: {} tokens do not fill a chunk of {}", o->text,
                      ids.size(), o->chunk);
    const bundle::Tokenizer &files = session.bundle.manifest().tokenizer();
    rt::Engine engine(*session.runner, 1);
    double sum = 0;
    uint64_t scored = 0;
    for (uint64_t c = 0; c < count; ++c) {
      auto request = std::make_shared<rt::Request>();
      request->prompt.assign(ids.begin() + ptrdiff_t(c * o->chunk),
                             ids.begin() + ptrdiff_t((c + 1) * o->chunk));
      if (files.prefix_size() == 1)
        request->prompt[0] = int32_t(files.prefix(0));
      request->scoreFrom = int32_t(o->chunk / 2 + 1);
      std::promise<std::string> done;
      request->onFinish = [&](rt::FinishReason, const std::string &error) {
        done.set_value(error);
      };
      engine.submit(request);
      std::string error = done.get_future().get();
      if (!error.empty())
        throw rt::Error(error);
      for (double value : request->logProbabilities)
        sum -= value;
      scored += request->logProbabilities.size();
      if (isatty(STDERR_FILENO))
        fmt::print(stderr, "\r\033[K{} of {} chunks, perplexity {:.4f}", c + 1,
                   count, std::exp(sum / double(scored)));
    }
    if (isatty(STDERR_FILENO))
      fmt::print(stderr, "\r\033[K");
    double perplexity = std::exp(sum / double(scored));
    if (o->json)
      fmt::print("{}\n", nlohmann::json({{"perplexity", perplexity},
                                         {"tokens", scored},
                                         {"chunks", count}})
                             .dump());
    else
      fmt::print("perplexity {:.4f} over {} tokens in {} chunks\n", perplexity,
                 scored, count);
  });
}

void cli::addLogits(CLI::App &app) {
  struct Options {
    SessionOptions session;
    std::vector<int32_t> tokens;
    std::string output;
    uint64_t rows = 64;
  };
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "logits",
      "Write the logits after each token as raw f32 [tokens][vocabulary]"
      ", for comparing with other implementations\n\nExample:\n  "
      "isthmus logits smol.isth --tokens 1,2,3 -o logits.f32\n");
  o->session.addTo(*command);
  command->add_option("--tokens", o->tokens, "token ids: 1,2,3")
      ->delimiter(',')
      ->required();
  command->add_option("-o,--output", o->output, "file to write")->required();
  command->add_option("--rows", o->rows, "most tokens a step")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  command->callback([o] {
    o->session.outputs = o->rows;
    Session session(o->session);
    std::ofstream file(o->output, std::ios::binary);
    rt::StepBatch batch;
    rt::StepResult result;
    const rt::ModelInfo &info = session.local->info();
    batch.pageStride = int64_t(info.pages);
    for (int64_t page = 0; page < batch.pageStride; ++page)
      batch.pageTables.push_back(int32_t(page));
    const size_t most = std::min(info.limits.tokens, info.limits.outputs);
    for (size_t first = 0; first < o->tokens.size(); first += most) {
      size_t count = std::min(most, o->tokens.size() - first);
      batch.ids.assign(o->tokens.begin() + ptrdiff_t(first),
                       o->tokens.begin() + ptrdiff_t(first + count));
      batch.positions.clear();
      batch.outputs.clear();
      for (size_t i = 0; i < count; ++i) {
        batch.positions.push_back(int32_t(first + i));
        batch.outputs.push_back({int32_t(i), -1, {0.0f, 1.0f, 0, 0}});
      }
      batch.sequence.assign(count, 0);
      session.runner->run(batch, result);
      for (size_t i = 0; i < count; ++i) {
        auto row = session.local->output(i);
        file.write(reinterpret_cast<const char *>(row.data()),
                   std::streamsize(row.size_bytes()));
      }
    }
    if (!file.flush())
      throw rt::Error("{}: cannot write", o->output);
  });
}
