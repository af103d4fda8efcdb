//===- TlsChannel.cpp - frames over mutual TLS ----------------------------===//
//
// TLS 1.3 only. Members of a cluster must both show a certificate of its
// authority; the name in it does not matter, membership does.
//
//===----------------------------------------------------------------------===//
#include "Channels.h"

#include "isthmus/runtime/Error.h"

#include <cerrno>
#include <cstring>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

using namespace isthmus::rt;

namespace {
struct Free {
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

void setTimeout(int fd, double seconds) {
  timeval limit{time_t(seconds),
                suseconds_t((seconds - double(time_t(seconds))) * 1e6)};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

class TlsChannel : public Channel {
public:
  TlsChannel(int fd, Owned<SSL> ssl, std::string name, uint64_t maxFrame)
      : fd(fd), ssl(std::move(ssl)), name(std::move(name)), maxFrame(maxFrame) {
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
    if (size > maxFrame)
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
  uint64_t maxFrame;
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

int listenOn(const Address &address) {
  Owned<addrinfo> info = resolve(address, true);
  int fd = ::socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (fd >= 0 && bind(fd, info->ai_addr, info->ai_addrlen) == 0 &&
      ::listen(fd, 8) == 0)
    return fd;
  std::string reason = std::strerror(errno);
  if (fd >= 0)
    ::close(fd);
  throw Error("{}: cannot listen: {}", address.text, reason);
}

/// The address of a listening socket, with its real port.
std::string boundAddress(int fd, const std::string &host) {
  sockaddr_storage own{};
  socklen_t size = sizeof(own);
  getsockname(fd, reinterpret_cast<sockaddr *>(&own), &size);
  char port[16] = "";
  getnameinfo(reinterpret_cast<sockaddr *>(&own), size, nullptr, 0, port,
              sizeof(port), NI_NUMERICSERV);
  return fmt::format("tls:{}:{}", host, port);
}

class TlsListener : public SocketListener {
public:
  TlsListener(int fd, const Address &address, TlsContext context,
              uint64_t maxFrame)
      : SocketListener(fd, boundAddress(fd, address.host)),
        context(std::move(context)), maxFrame(maxFrame) {}

protected:
  std::unique_ptr<Channel> admit(int peer) override {
    setTimeout(peer, 5); // a peer that says nothing must not hold the door
    Owned<SSL> ssl(SSL_new(context.get()));
    SSL_set_fd(ssl.get(), peer);
    if (SSL_accept(ssl.get()) == 1)
      return std::make_unique<TlsChannel>(peer, std::move(ssl), text, maxFrame);
    std::string reason = lastError();
    ssl.reset();
    ::close(peer);
    throw Error("a peer did not prove that it belongs here: {}", reason);
  }

private:
  TlsContext context;
  uint64_t maxFrame;
};
} // namespace

TlsContext isthmus::rt::makeTlsContext() {
  TlsContext context(SSL_CTX_new(TLS_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context.get(), 0);
  return context;
}

TlsContext isthmus::rt::memberContext(const std::string &folder) {
  if (folder.empty())
    throw Error("tls needs the folder of this cluster member: --cluster DIR "
                "(make one with 'isthmus cluster create', or join one with "
                "'isthmus cluster join')");
  TlsContext context = makeTlsContext();
  SSL_CTX_set_verify(context.get(),
                     SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     nullptr);
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

std::unique_ptr<Listener> isthmus::rt::listenTls(const Address &address,
                                                 TlsContext context,
                                                 uint64_t maxFrame) {
  return std::make_unique<TlsListener>(listenOn(address), address,
                                       std::move(context), maxFrame);
}

std::unique_ptr<Channel> isthmus::rt::connectTls(const Address &address,
                                                 TlsContext context,
                                                 double timeoutSeconds,
                                                 uint64_t maxFrame) {
  Owned<addrinfo> info = resolve(address, false);
  int fd = connectWithin(address, timeoutSeconds, [&] {
    int attempt = ::socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (attempt >= 0 &&
        ::connect(attempt, info->ai_addr, info->ai_addrlen) == 0)
      return attempt;
    int error = errno;
    if (attempt >= 0)
      ::close(attempt);
    errno = error;
    return -1;
  });
  setTimeout(fd, timeoutSeconds + 5);
  Owned<SSL> ssl(SSL_new(context.get()));
  SSL_set_fd(ssl.get(), fd);
  if (SSL_connect(ssl.get()) != 1) {
    std::string reason = lastError();
    ssl.reset();
    ::close(fd);
    throw Error("{}: is not a member of this cluster: {}", address.text,
                reason);
  }
  return std::make_unique<TlsChannel>(fd, std::move(ssl), address.text,
                                      maxFrame);
}
