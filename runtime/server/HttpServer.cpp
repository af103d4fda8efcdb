//===- HttpServer.cpp - HTTP/1.1 in front of the OpenAI API ---------------===//
#include "HttpServer.h"

#include "Embeddings.h"

#include "isthmus/runtime/TextStream.h"

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <sys/socket.h>
#include <thread>

using namespace isthmus::rt;
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using nlohmann::json;
using tcp = asio::ip::tcp;

namespace {
constexpr auto kIdleTimeout = std::chrono::seconds(60);
constexpr auto kWriteTimeout = std::chrono::seconds(30);
/// How often a waiting connection looks whether its client is still there.
constexpr auto kPresenceCheck = std::chrono::milliseconds(100);

std::string dump(const json &value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

/// What the engine's thread says to the connection's thread.
class EventQueue {
public:
  struct Event {
    std::string text;
    bool finished = false;
    FinishReason reason = FinishReason::Stop;
    std::string error;
  };
  void push(Event event) {
    {
      std::lock_guard lock(mutex);
      events.push_back(std::move(event));
    }
    ready.notify_one();
  }
  /// The next event, or none after `kPresenceCheck`.
  std::optional<Event> pop() {
    std::unique_lock lock(mutex);
    if (!ready.wait_for(lock, kPresenceCheck, [&] { return !events.empty(); }))
      return std::nullopt;
    Event event = std::move(events.front());
    events.pop_front();
    return event;
  }

private:
  std::mutex mutex;
  std::condition_variable ready;
  std::deque<Event> events;
};

class Connection {
public:
  Connection(tcp::socket socket, const ServedModel &model, size_t maxBody)
      : model(model), maxBody(maxBody), stream(context) {
    // The socket moves to a context of its own, which this thread runs.
    auto protocol = socket.local_endpoint().protocol();
    stream.socket().assign(protocol, socket.release());
  }

  void run() {
    beast::flat_buffer buffer;
    bool again = true;
    while (again) {
      http::request_parser<http::string_body> parser;
      parser.body_limit(maxBody);
      parser.header_limit(16 * 1024);
      beast::error_code error;
      stream.expires_after(kIdleTimeout);
      http::async_read(stream, buffer, parser,
                       [&](beast::error_code e, size_t) { error = e; });
      drive();
      if (error == http::error::end_of_stream || error == beast::error::timeout)
        break;
      if (error) {
        answerMalformed(error);
        break;
      }
      again = handle(parser.get());
    }
    beast::error_code ignored;
    stream.socket().shutdown(tcp::socket::shutdown_both, ignored);
  }

private:
  const ServedModel &model;
  size_t maxBody;
  asio::io_context context{1};
  beast::tcp_stream stream;

  void drive() {
    context.restart();
    context.run();
  }

  template <typename Message> bool write(Message &message) {
    beast::error_code error;
    stream.expires_after(kWriteTimeout);
    http::async_write(stream, message,
                      [&](beast::error_code e, size_t) { error = e; });
    drive();
    return !error;
  }
  bool writeText(const std::string &text) {
    beast::error_code error;
    stream.expires_after(kWriteTimeout);
    asio::async_write(stream, asio::buffer(text),
                      [&](beast::error_code e, size_t) { error = e; });
    drive();
    return !error;
  }

  bool clientIsThere() {
    char byte;
    ssize_t count = recv(stream.socket().native_handle(), &byte, 1,
                         MSG_PEEK | MSG_DONTWAIT);
    return count > 0 ||
           (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
  }

  void answerMalformed(beast::error_code error) {
    bool tooLarge = error == http::error::body_limit;
    // Network errors have nobody to answer.
    if (!tooLarge &&
        error.category() != make_error_code(http::error::bad_method).category())
      return;
    ApiError problem(
        tooLarge ? 413 : 400,
        tooLarge ? fmt::format("the body is larger than {} bytes", maxBody)
                 : fmt::format("malformed HTTP: {}", error.message()));
    respond(http::status(problem.status), dump(problem.body()), false, 11);
  }

  bool respond(http::status status, const std::string &body, bool keepAlive,
               unsigned version, const char *type = "application/json") {
    http::response<http::string_body> response(status, version);
    response.set(http::field::server, "isthmus");
    response.set(http::field::content_type, type);
    response.keep_alive(keepAlive);
    response.body() = body;
    response.prepare_payload();
    return write(response) && keepAlive;
  }

  /// Returns whether the connection stays.
  bool handle(const http::request<http::string_body> &request) {
    const bool keep = request.keep_alive();
    const unsigned version = request.version();
    std::string target(request.target().substr(0, request.target().find('?')));
    try {
      struct Route {
        const char *path;
        http::verb method;
      };
      static const Route routes[] = {{"/health", http::verb::get},
                                     {"/metrics", http::verb::get},
                                     {"/v1/models", http::verb::get},
                                     {"/v1/completions", http::verb::post},
                                     {"/v1/chat/completions", http::verb::post},
                                     {"/v1/embeddings", http::verb::post},
                                     {"/classify", http::verb::post}};
      const Route *route = nullptr;
      for (const Route &candidate : routes)
        if (target == candidate.path)
          route = &candidate;
      if (!route)
        throw ApiError(404, fmt::format("there is no {}", target));
      if (request.method() != route->method)
        throw ApiError(
            405,
            fmt::format("{} takes {}", target,
                        route->method == http::verb::get ? "GET" : "POST"));
      // A web page must not use a server on its visitor's machine.
      if (request.count(http::field::origin))
        throw ApiError(403, "requests from web pages are not served");
      if (target == "/health")
        return respond(http::status::ok, R"({"status":"ok"})", keep, version);
      if (target == "/metrics")
        return respond(http::status::ok, metricsText(model.stats()), keep,
                       version, "text/plain; version=0.0.4");
      if (target == "/v1/models")
        return respond(http::status::ok, dump(listModels(model)), keep,
                       version);
      if (target == "/v1/embeddings")
        return respond(http::status::ok,
                       dump(answerEmbeddings(request.body(), model)), keep,
                       version);
      if (target == "/classify")
        return respond(http::status::ok,
                       dump(answerClassify(request.body(), model)), keep,
                       version);
      return complete(request, target == "/v1/chat/completions");
    } catch (const ApiError &error) {
      return respond(http::status(error.status), dump(error.body()), keep,
                     version);
    } catch (const std::exception &error) {
      return respond(http::status::internal_server_error,
                     dump(ApiError(500, error.what()).body()), keep, version);
    }
  }

  bool complete(const http::request<http::string_body> &http, bool chat) {
    CompletionRequest parsed = parseCompletion(http.body(), chat, model);
    Request &request = *parsed.request;
    auto queue = std::make_shared<EventQueue>();
    auto text = std::make_shared<TextStream>(*model.tokenizer, parsed.stop);
    request.onToken = [queue, text](int32_t token) {
      std::string piece = text->push(token);
      if (!piece.empty())
        queue->push({.text = piece, .error = {}});
      return !text->stopped();
    };
    request.onFinish = [queue, text](FinishReason reason,
                                     const std::string &error) {
      queue->push({.text = text->finish(),
                   .finished = true,
                   .reason = reason,
                   .error = error});
    };
    // Tokens are counted by the engine: the answer and, if it ended on one, the
    // end token.
    auto tokens = std::make_shared<std::atomic<size_t>>(0);
    auto inner = request.onToken;
    request.onToken = [inner, tokens](int32_t token) {
      ++*tokens;
      return inner(token);
    };
    try {
      model.engine->submit(parsed.request);
    } catch (const Error &error) {
      throw ApiError(400, error.what());
    }
    CompletionWriter writer(parsed, model);
    return parsed.stream ? streamAnswer(http, parsed, writer, *queue, *tokens)
                         : wholeAnswer(http, parsed, writer, *queue, *tokens);
  }

  /// Waits for the next event; cancels the request when the client is gone.
  std::optional<EventQueue::Event> next(CompletionRequest &parsed,
                                        EventQueue &queue) {
    while (true) {
      if (auto event = queue.pop())
        return event;
      if (!clientIsThere()) {
        parsed.request->cancelled = true;
        return std::nullopt;
      }
    }
  }

  static std::string reasonText(FinishReason reason) {
    return reason == FinishReason::Length ? "length" : "stop";
  }

  bool wholeAnswer(const http::request<http::string_body> &http,
                   CompletionRequest &parsed, const CompletionWriter &writer,
                   EventQueue &queue, const std::atomic<size_t> &tokens) {
    std::string text;
    while (auto event = next(parsed, queue)) {
      text += event->text;
      if (!event->finished)
        continue;
      if (!event->error.empty())
        throw ApiError(503, event->error);
      return respond(
          http::status::ok,
          dump(writer.whole(text, reasonText(event->reason), tokens)),
          http.keep_alive(), http.version());
    }
    return false;
  }

  bool streamAnswer(const http::request<http::string_body> &http,
                    CompletionRequest &parsed, const CompletionWriter &writer,
                    EventQueue &queue, const std::atomic<size_t> &tokens) {
    // The status is sent with the first text, so that early errors keep theirs.
    bool started = false, alive = true;
    auto send = [&](const json &object) {
      if (!started) {
        started = true;
        http::response<http::empty_body> head(http::status::ok, http.version());
        head.set(http::field::server, "isthmus");
        head.set(http::field::content_type, "text/event-stream");
        head.set(http::field::cache_control, "no-cache");
        head.keep_alive(false);
        http::response_serializer<http::empty_body> serializer(head);
        beast::error_code error;
        stream.expires_after(kWriteTimeout);
        http::async_write_header(
            stream, serializer,
            [&](beast::error_code e, size_t) { error = e; });
        drive();
        alive = !error;
        if (parsed.chat)
          alive =
              alive && writeText("data: " + dump(writer.firstChunk()) + "\n\n");
      }
      alive = alive && writeText("data: " + dump(object) + "\n\n");
      if (!alive)
        parsed.request->cancelled = true;
    };
    while (auto event = next(parsed, queue)) {
      if (!event->error.empty()) {
        ApiError error(503, event->error);
        if (!started)
          throw error;
        send(error.body());
        return false;
      }
      if (!event->text.empty())
        send(writer.chunk(event->text));
      if (event->finished) {
        send(writer.lastChunk(reasonText(event->reason)));
        if (parsed.includeUsage)
          send(writer.usageChunk(tokens));
        if (alive)
          writeText("data: [DONE]\n\n");
        return false;
      }
      if (!alive)
        return false;
    }
    return false;
  }
};
} // namespace

struct HttpServer::Impl {
  Impl(const HttpOptions &options, const ServedModel &model)
      : options(options), model(model), acceptor(context) {
    beast::error_code error;
    auto address = asio::ip::make_address(options.host, error);
    if (error)
      throw Error("'{}' is not an IP address to listen on", options.host);
    tcp::endpoint endpoint(address, options.port);
    acceptor.open(endpoint.protocol());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.bind(endpoint, error);
    if (!error)
      acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error)
      throw Error("cannot listen on {}:{}: {}", options.host, options.port,
                  error.message());
  }

  HttpOptions options;
  ServedModel model;
  asio::io_context context{1};
  tcp::acceptor acceptor;
  std::atomic<bool> stopping = false;
  std::mutex mutex;
  std::condition_variable idle;
  unsigned connections = 0;
};

HttpServer::HttpServer(const HttpOptions &options, const ServedModel &model)
    : impl(new Impl(options, model)) {}
HttpServer::~HttpServer() = default;

unsigned short HttpServer::port() const {
  return impl->acceptor.local_endpoint().port();
}

void HttpServer::run() {
  while (!impl->stopping) {
    beast::error_code error;
    tcp::socket socket(impl->context);
    impl->acceptor.accept(socket, error);
    if (impl->stopping)
      break;
    if (error)
      continue;
    std::unique_lock lock(impl->mutex);
    impl->idle.wait(
        lock, [&] { return impl->connections < impl->options.maxConnections; });
    impl->connections++;
    std::thread([this,
                 connection = std::make_shared<Connection>(
                     std::move(socket), impl->model, impl->options.maxBody)] {
      try {
        connection->run();
      } catch (const std::exception &) {
        // The connection broke; its request was cancelled on the way out.
      }
      std::lock_guard guard(impl->mutex);
      impl->connections--;
      impl->idle.notify_all();
    }).detach();
  }
  // Let answers that are under way finish, for a while.
  std::unique_lock lock(impl->mutex);
  impl->idle.wait_for(lock, std::chrono::seconds(10),
                      [&] { return impl->connections == 0; });
}

void HttpServer::stop() {
  impl->stopping = true;
  ::shutdown(impl->acceptor.native_handle(), SHUT_RDWR);
}
