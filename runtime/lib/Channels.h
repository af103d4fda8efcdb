//===- Channels.h - the kinds of channels, behind Transport.h ---*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Transport.h"

#include <atomic>
#include <memory>
#include <openssl/ssl.h>

namespace isthmus::rt {

/// Accepts sockets until closed. What makes a peer belong here is the business
/// of `admit`.
class SocketListener : public Listener {
public:
  ~SocketListener() override;
  std::string address() const override { return text; }
  std::unique_ptr<Channel> accept() override;
  void close() override;

protected:
  /// Owns `fd`, a listening socket; `text` is its address for messages.
  SocketListener(int fd, std::string text) : fd(fd), text(std::move(text)) {}
  /// Makes a channel of an accepted socket, which it owns. Throws Error with
  /// the reason if the peer is refused.
  virtual std::unique_ptr<Channel> admit(int peer) = 0;

  const int fd;
  const std::string text;

private:
  std::atomic<bool> closing = false;
};

/// Calls `attempt`, which returns a connected socket or -1 with errno set,
/// until it succeeds or `timeoutSeconds` are over. Throws Error then.
int connectWithin(const Address &address, double timeoutSeconds,
                  const std::function<int()> &attempt);

std::unique_ptr<Listener> listenSharedMemory(const Address &address);
std::unique_ptr<Channel> connectSharedMemory(const Address &address,
                                             double timeoutSeconds);

struct FreeContext {
  void operator()(SSL_CTX *context) const { SSL_CTX_free(context); }
};
/// Who a side of a TLS connection is, and whom it accepts.
using TlsContext = std::unique_ptr<SSL_CTX, FreeContext>;

/// A context of TLS 1.3 without session resumption, so that every connection
/// proves anew who is there.
TlsContext makeTlsContext();
/// The context of a cluster's member: shows its certificate, and accepts those
/// of the same authority.
TlsContext memberContext(const std::string &clusterFolder);

/// `maxFrame` bounds what a peer can make this side allocate.
std::unique_ptr<Listener> listenTls(const Address &address, TlsContext context,
                                    uint64_t maxFrame = kMaxFrame);
std::unique_ptr<Channel> connectTls(const Address &address, TlsContext context,
                                    double timeoutSeconds,
                                    uint64_t maxFrame = kMaxFrame);

} // namespace isthmus::rt
