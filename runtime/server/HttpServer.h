//===- HttpServer.h - HTTP/1.1 in front of the OpenAI API -------*- C++ -*-===//
#pragma once

#include "OpenAI.h"

#include <memory>
#include <string>

namespace isthmus::rt {

struct HttpOptions {
  std::string host = "127.0.0.1"; ///< loopback unless the user says otherwise
  unsigned short port = 8080;     ///< 0 takes a free one
  unsigned maxConnections = 128;
  size_t maxBody = 8 << 20; ///< bytes
};

/// Serves until stop(). One thread a connection, at most `maxConnections`.
class HttpServer {
public:
  HttpServer(const HttpOptions &options, const ServedModel &model);
  ~HttpServer();

  unsigned short port() const;
  void run();  ///< accepts until stop()
  void stop(); ///< from a signal handler's thread or another thread

private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};

} // namespace isthmus::rt
