//===- Serve.cpp - 'isthmus serve' and 'worker' ---------------------------===//
#include "Commands.h"
#include "Encoders.h"

#include "HttpServer.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Worker.h"

#include <csignal>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <thread>

using namespace isthmus;

namespace {
/// Blocks SIGINT and SIGTERM in all threads and calls `stop` when one comes.
class SignalWatcher {
public:
  explicit SignalWatcher(std::function<void()> stop) {
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    std::thread([this, stop = std::move(stop)] {
      int signal;
      sigwait(&set, &signal);
      stop();
    }).detach();
  }

private:
  sigset_t set;
};

void say(const std::string &message) {
  fmt::print("{}\n", message);
  std::fflush(stdout);
}

/// Inputs that are held decoded at once: a picture may be much larger then.
constexpr size_t kInputsAtOnce = 16;

/// The vectors of a few inputs, which may mix texts and images. `decoding` is
/// held while a picture is large.
void encodeSome(cli::Encoders &encoders, std::mutex &decoding,
                std::span<const rt::EncoderInput> inputs, rt::Encodings &out) {
  using Sequence = rt::Encoder::Sequence;
  struct Part {
    rt::Encoder *encoder = nullptr;
    std::vector<Sequence> sequences;
    std::vector<size_t> indices; ///< of the results
  };
  Part texts, images;
  for (const rt::EncoderInput &input : inputs) {
    const size_t index = out.vectors.size();
    out.vectors.emplace_back();
    const auto *picture = std::get_if<std::vector<std::byte>>(&input);
    Part &part = picture ? images : texts;
    part.encoder = picture ? &encoders.image() : &encoders.text();
    part.indices.push_back(index);
    if (picture) {
      std::lock_guard lock(decoding);
      part.sequences.push_back(
          encoders.ofImage(*picture, fmt::format("input {}", index)));
      continue;
    }
    const auto *text = std::get_if<std::string>(&input);
    part.sequences.push_back(
        text ? encoders.ofText(*text)
             : Sequence{std::get<std::vector<int32_t>>(input), {}});
    out.tokens += part.sequences.back().ids.size();
  }
  for (Part *part : {&texts, &images}) {
    if (part->sequences.empty())
      continue;
    auto vectors = part->encoder->run(part->sequences);
    for (size_t i = 0; i < vectors.size(); ++i)
      out.vectors[part->indices[i]] = std::move(vectors[i]);
  }
}

/// Makes the API see encoders, which must outlive `model`.
void describe(cli::Encoders &encoders, rt::ServedModel &model) {
  // Before the first request, and by one thread.
  for (bool images : {false, true})
    if (images ? encoders.takesImages() : encoders.takesTexts()) {
      const auto &program =
          (images ? encoders.image() : encoders.text()).program();
      model.classifies = program.task() == bundle::CLASSIFY;
      model.labels.assign(program.labels().begin(), program.labels().end());
    }
  struct State {
    std::mutex decoding;
    std::mutex mutex; ///< of the counters
    rt::EngineStats stats;
  };
  auto state = std::make_shared<State>();
  model.encode = [&encoders, state](std::span<const rt::EncoderInput> inputs) {
    rt::Encodings encodings;
    for (; !inputs.empty();
         inputs = inputs.subspan(std::min(kInputsAtOnce, inputs.size())))
      encodeSome(encoders, state->decoding,
                 inputs.first(std::min(kInputsAtOnce, inputs.size())),
                 encodings);
    std::lock_guard lock(state->mutex);
    state->stats.requests++;
    state->stats.promptTokens += encodings.tokens;
    return encodings;
  };
  model.stats = [&encoders, state] {
    std::lock_guard lock(state->mutex);
    rt::EngineStats stats = state->stats;
    if (encoders.takesTexts())
      stats.steps += encoders.text().steps();
    if (encoders.takesImages())
      stats.steps += encoders.image().steps();
    return stats;
  };
}
} // namespace

void cli::addServe(CLI::App &app) {
  struct Options {
    SessionOptions session;
    rt::HttpOptions http;
    unsigned sequences = 32;
    std::string name;
  };
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "serve",
      "Serve a bundle with the OpenAI API: completions and chats, or "
      "embeddings\n\nExample:\n  isthmus serve smol.isth --port 8080\n  curl "
      "localhost:8080/v1/models\n");
  o->session.addTo(*command);
  o->session.addRemoteTo(*command);
  command->add_option("--port", o->http.port, "port; 0 takes a free one")
      ->capture_default_str();
  command->add_option("--host", o->http.host, "address to listen on")
      ->capture_default_str();
  command->add_option("--sequences", o->sequences, "answers at once")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--name", o->name,
                      "name of the model in the API (default: the file's)");
  command->callback([o] {
    o->session.outputs = o->sequences;
    // Signals are blocked before any thread starts.
    std::function<void()> stop;
    std::mutex mutex;
    SignalWatcher watcher([&] {
      std::lock_guard lock(mutex);
      if (stop)
        stop();
      else
        std::_Exit(0);
    });
    auto serve = [&](rt::ServedModel &model) {
      model.name =
          o->name.empty()
              ? std::filesystem::path(o->session.bundle).stem().string()
              : o->name;
      rt::HttpServer server(o->http, model);
      {
        std::lock_guard lock(mutex);
        stop = [&] { server.stop(); };
      }
      say(fmt::format("serving '{}' on http://{}:{}", model.name, o->http.host,
                      server.port()));
      server.run();
      std::lock_guard lock(mutex);
      stop = nullptr;
    };
    rt::Bundle bundle = openTrusted(o->session.bundle);
    rt::ServedModel model;
    if (!isGenerator(bundle)) {
      Encoders encoders(std::move(bundle), o->session);
      describe(encoders, model);
      return serve(model);
    }
    Session session(std::move(bundle), o->session);
    rt::Engine engine(*session.runner, o->sequences);
    model.stats = [&] { return engine.stats(); };
    model.engine = &engine;
    model.tokenizer = &session.needTokenizer();
    model.encodePrompt = [&](const std::string &text) {
      return session.encodePrompt(text);
    };
    model.encodeChat = [&](const nlohmann::json &messages) {
      return session.encodeChat(messages);
    };
    model.stopTokens = session.stopTokens();
    serve(model);
  });
}

void cli::addWorker(CLI::App &app) {
  struct Options {
    std::string bundle, listen;
    rt::WorkerOptions worker;
  };
  auto o = std::make_shared<Options>();
  CLI::App *command = app.add_subcommand(
      "worker",
      "Run one device's part of a bundle for a coordinator\n\nExample:"
      "\n  isthmus worker smol.isth --device board --listen "
      "unix:/tmp/board.sock\n");
  command->add_option("BUNDLE", o->bundle, "a bundle")->required();
  command
      ->add_option("--listen", o->listen,
                   "unix:/path (shared memory, this host) or tls:host:port")
      ->required();
  command->add_option("--device", o->worker.device,
                      "device of the topology that this worker is");
  command->add_option("--cluster", o->worker.cluster,
                      "folder of this cluster member (tls)");
  command->add_option("--threads", o->worker.threads, "threads");
  command->callback([o] {
    rt::Bundle bundle(o->bundle);
    bundle.requireTrust(rt::KeyStore());
    auto listener = rt::listen(rt::parseAddress(o->listen), o->worker.cluster);
    listener->onRefused = [](const std::string &why) {
      fmt::print(stderr, "refused a connection: {}\n", why);
    };
    SignalWatcher watcher([&] {
      listener->close();
      std::_Exit(0);
    });
    say(fmt::format("worker listens on {}", listener->address()));
    while (auto channel = listener->accept()) {
      try {
        rt::serveWorker(*channel, bundle, o->worker);
      } catch (const rt::Error &error) {
        fmt::print(stderr, "session ended: {}\n", error.what());
      }
    }
  });
}
