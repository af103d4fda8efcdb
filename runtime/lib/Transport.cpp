//===- Transport.cpp - addresses and the choice of a channel --------------===//
#include "Channels.h"

#include "isthmus/runtime/Error.h"

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>

using namespace isthmus::rt;

Address isthmus::rt::parseAddress(const std::string &text) {
  Address address{};
  address.text = text;
  if (text.starts_with("unix:") && text.size() > 5) {
    address.kind = Address::Kind::SharedMemory;
    address.path = text.substr(5);
    return address;
  }
  size_t colon = text.rfind(':');
  if (text.starts_with("tls:") && colon > 4 && colon != std::string::npos) {
    address.kind = Address::Kind::Tls;
    address.host = text.substr(4, colon - 4);
    address.port = text.substr(colon + 1);
    unsigned port = 0;
    auto [end, error] = std::from_chars(
        address.port.data(), address.port.data() + address.port.size(), port);
    if (error == std::errc() && *end == '\0' && port <= 65535)
      return address;
  }
  throw Error("'{}' is not an address; write unix:/path/to/socket or "
              "tls:host:port",
              text);
}

std::unique_ptr<Listener>
isthmus::rt::listen(const Address &address, const std::string &clusterFolder) {
  return address.kind == Address::Kind::SharedMemory
             ? listenSharedMemory(address)
             : listenTls(address, memberContext(clusterFolder));
}

std::unique_ptr<Channel> isthmus::rt::connect(const Address &address,
                                              const std::string &clusterFolder,
                                              double timeoutSeconds) {
  return address.kind == Address::Kind::SharedMemory
             ? connectSharedMemory(address, timeoutSeconds)
             : connectTls(address, memberContext(clusterFolder),
                          timeoutSeconds);
}

SocketListener::~SocketListener() { ::close(fd); }

void SocketListener::close() {
  closing = true;
  ::shutdown(fd, SHUT_RDWR);
}

std::unique_ptr<Channel> SocketListener::accept() {
  while (true) {
    int peer = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
    if (peer < 0) {
      if (closing || (errno != EINTR && errno != ECONNABORTED))
        return nullptr;
      continue;
    }
    try {
      return admit(peer);
    } catch (const Error &error) {
      if (onRefused)
        onRefused(error.what());
    }
  }
}

int isthmus::rt::connectWithin(const Address &address, double timeoutSeconds,
                               const std::function<int()> &attempt) {
  auto start = std::chrono::steady_clock::now();
  while (true) {
    int fd = attempt();
    if (fd >= 0)
      return fd;
    const int error = errno;
    std::chrono::duration<double> waited =
        std::chrono::steady_clock::now() - start;
    if (waited.count() > timeoutSeconds)
      throw Error("{}: no worker answers: {}", address.text,
                  std::strerror(error));
    usleep(50'000);
  }
}
