//===- Transport.h - framed messages between processes ----------*- C++ -*-===//
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace isthmus::rt {

/// Largest frame that is accepted, in bytes.
inline constexpr uint64_t kMaxFrame = 1ull << 30;

/// A connection that carries frames (a length and bytes) in order. Both ends
/// may be used by one sending and one receiving thread at a time. All functions
/// throw Error naming the peer when the connection is lost.
class Channel {
public:
  virtual ~Channel() = default;

  /// Sends one frame made of `parts`, in order.
  virtual void send(std::span<const std::span<const std::byte>> parts) = 0;
  /// Receives the next frame into `frame`. `timeoutSeconds` 0 waits for ever.
  virtual void receive(std::vector<std::byte> &frame,
                       double timeoutSeconds = 0) = 0;
  /// Makes pending and later calls of both ends fail.
  virtual void close() = 0;
  virtual std::string peer() const = 0;
};

/// Where a process listens or connects to:
///   unix:/path/socket   shared memory on this host; same user only
///   tls:host:port       mutual TLS between members of a cluster
struct Address {
  enum class Kind { SharedMemory, Tls } kind;
  std::string path;       ///< SharedMemory
  std::string host, port; ///< Tls
  std::string text;
};
/// Throws Error if malformed.
Address parseAddress(const std::string &text);

/// Accepts connections until closed.
class Listener {
public:
  virtual ~Listener() = default;
  /// The address with the real port, if port 0 was asked for.
  virtual std::string address() const = 0;
  /// Waits for a peer that proves it belongs here; others are refused and
  /// reported to `onRefused`. Returns null after close().
  virtual std::unique_ptr<Channel> accept() = 0;
  virtual void close() = 0;
  std::function<void(const std::string &)> onRefused;
};

/// Members of a cluster know one another by certificates of its authority.
/// `clusterFolder` holds ca.pem, cert.pem and key.pem (Cluster.h); only tls
/// needs it.
std::unique_ptr<Listener> listen(const Address &address,
                                 const std::string &clusterFolder);
std::unique_ptr<Channel> connect(const Address &address,
                                 const std::string &clusterFolder,
                                 double timeoutSeconds);

} // namespace isthmus::rt
