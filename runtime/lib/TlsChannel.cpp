//===- TlsChannel.cpp - frames over mutual TLS ----------------------------===//
//
// TLS 1.3 only. Both sides must show a certificate of the cluster's authority;
// the name in it does not matter, membership does.
//
//===----------------------------------------------------------------------===//
#include "Channels.h"

#include "isthmus/runtime/Error.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

using namespace isthmus::rt;

namespace {
struct Free {
  void operator()(SSL_CTX *context) const { SSL_CTX_free(context); }
  void operator()(SSL *ssl) const { SSL_free(ssl); }
  void operator()(addrinfo *info) const { freeaddrinfo(info); }
};
template <typename T> using Owned = std::unique_ptr<T, Free>;

std::string lastError() {
  char text[256];
  unsigned long code = ERR_get_error();
  if (code == 0)
    return "the peer hung up";
  ERR_error_string_n(code, text, sizeof(text));
  ERR_clear_error();
  return text;
}

Owned<SSL_CTX> makeContext(const std::string &folder) {
  if (folder.empty())
    throw Error("tls needs the folder of this cluster member: --cluster DIR "
                "(make one with 'isthmus cluster create')");
  Owned<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_verify(context.get(),
                     SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     nullptr);
  // Every connection proves membership anew.
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context.get(), 0);
  if (SSL_CTX_load_verify_file(context.get(), (folder + "/ca.pem").c_str()) !=
          1 ||
      SSL_CTX_use_certificate_file(context.get(),
                                   (folder + "/cert.pem").c_str(),
                                   SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_use_PrivateKey_file(context.get(), (folder + "/key.pem").c_str(),
                                  SSL_FILETYPE_PEM) != 1)
    throw Error(
        "{}: needs ca.pem, cert.pem and key.pem of a cluster member: {}",
        folder, lastError());
  return context;
}

void setTimeout(int fd, double seconds) {
  timeval limit{time_t(seconds),
                suseconds_t((seconds - double(time_t(seconds))) * 1e6)};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

class TlsChannel : public Channel {
public:
  TlsChannel(int fd, Owned<SSL> ssl, std::string name)
      : fd(fd), ssl(std::move(ssl)), name(std::move(name)) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  }
  ~TlsChannel() override {
    ssl.reset();
    ::close(fd);
  }

  void send(std::span<const std::span<const std::byte>> parts) override {
    // One write for a small frame: length and parts travel together.
    uint64_t size = 0;
    for (auto part : parts)
      size += part.size();
    buffer.resize(sizeof(size));
    std::memcpy(buffer.data(), &size, sizeof(size));
    for (auto part : parts)
      buffer.insert(buffer.end(), part.begin(), part.end());
    for (size_t done = 0; done < buffer.size();) {
      size_t written = 0;
      if (SSL_write_ex(ssl.get(), buffer.data() + done, buffer.size() - done,
                       &written) != 1)
        throw Error("{}: cannot send: {}", name, lastError());
      done += written;
    }
  }

  void receive(std::vector<std::byte> &frame, double timeoutSeconds) override {
    setTimeout(fd, timeoutSeconds);
    uint64_t size = 0;
    read(std::as_writable_bytes(std::span(&size, 1)));
    if (size > kMaxFrame)
      throw Error("{}: sent a frame of {} bytes", name, size);
    frame.resize(size);
    read(frame);
  }

  void close() override { ::shutdown(fd, SHUT_RDWR); }
  std::string peer() const override { return name; }

private:
  void read(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      size_t count = 0;
      errno = 0;
      if (SSL_read_ex(ssl.get(), bytes.data(), bytes.size(), &count) != 1) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
          throw Error("{}: no answer in time", name);
        throw Error("{}: the connection is closed: {}", name, lastError());
      }
      bytes = bytes.subspan(count);
    }
  }

  int fd;
  Owned<SSL> ssl;
  std::string name;
  std::vector<std::byte> buffer;
};

Owned<addrinfo> resolve(const Address &address, bool passive) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo *found = nullptr;
  int error =
      getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
  if (error != 0)
    throw Error("{}: {}", address.text, gai_strerror(error));
  return Owned<addrinfo>(found);
}

class TlsListener : public Listener {
public:
  TlsListener(const Address &address, const std::string &folder)
      : context(makeContext(folder)), host(address.host) {
    Owned<addrinfo> info = resolve(address, true);
    fd = ::socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, info->ai_addr, info->ai_addrlen) != 0 ||
        ::listen(fd, 8) != 0) {
      std::string reason = std::strerror(errno);
      if (fd >= 0)
        ::close(fd);
      throw Error("{}: cannot listen: {}", address.text, reason);
    }
    sockaddr_storage own{};
    socklen_t size = sizeof(own);
    getsockname(fd, reinterpret_cast<sockaddr *>(&own), &size);
    char port[16] = "";
    getnameinfo(reinterpret_cast<sockaddr *>(&own), size, nullptr, 0, port,
                sizeof(port), NI_NUMERICSERV);
    text = fmt::format("tls:{}:{}", host, port);
  }
  ~TlsListener() override { ::close(fd); }
  std::string address() const override { return text; }
  void close() override {
    closing = true;
    ::shutdown(fd, SHUT_RDWR);
  }

  std::unique_ptr<Channel> accept() override {
    while (true) {
      int peer = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
      if (peer < 0) {
        if (closing || (errno != EINTR && errno != ECONNABORTED))
          return nullptr;
        continue;
      }
      setTimeout(peer, 5); // a peer that says nothing must not hold the door
      Owned<SSL> ssl(SSL_new(context.get()));
      SSL_set_fd(ssl.get(), peer);
      if (SSL_accept(ssl.get()) == 1)
        return std::make_unique<TlsChannel>(peer, std::move(ssl), text);
      if (onRefused)
        onRefused("a peer without a certificate of this cluster: " +
                  lastError());
      ::close(peer);
    }
  }

private:
  Owned<SSL_CTX> context;
  std::string host, text;
  int fd = -1;
  std::atomic<bool> closing = false;
};
} // namespace

std::unique_ptr<Listener> isthmus::rt::listenTls(const Address &address,
                                                 const std::string &folder) {
  return std::make_unique<TlsListener>(address, folder);
}

std::unique_ptr<Channel> isthmus::rt::connectTls(const Address &address,
                                                 const std::string &folder,
                                                 double timeoutSeconds) {
  Owned<SSL_CTX> context = makeContext(folder);
  Owned<addrinfo> info = resolve(address, false);
  auto start = std::chrono::steady_clock::now();
  int fd = -1;
  while (true) {
    fd = ::socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && ::connect(fd, info->ai_addr, info->ai_addrlen) == 0)
      break;
    std::string reason = std::strerror(errno);
    if (fd >= 0)
      ::close(fd);
    std::chrono::duration<double> waited =
        std::chrono::steady_clock::now() - start;
    if (waited.count() > timeoutSeconds)
      throw Error("{}: no worker answers: {}", address.text, reason);
    usleep(50'000);
  }
  setTimeout(fd, timeoutSeconds + 5);
  Owned<SSL> ssl(SSL_new(context.get()));
  SSL_set_fd(ssl.get(), fd);
  if (SSL_connect(ssl.get()) != 1) {
    ::close(fd);
    throw Error("{}: is not a member of this cluster: {}", address.text,
                lastError());
  }
  return std::make_unique<TlsChannel>(fd, std::move(ssl), address.text);
}
