//===- SharedMemoryChannel.cpp - frames through shared memory -------------===//
//
// A Unix socket introduces the two processes: the connecting side makes an
// anonymous file with two rings and passes its descriptor. Peers must run as
// the same user (SO_PEERCRED). Afterwards the socket only tells that the peer
// is gone.
//
//===----------------------------------------------------------------------===//
#include "Channels.h"

#include "isthmus/runtime/Error.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

using namespace isthmus::rt;

namespace {
constexpr uint64_t kRingBytes = 4 << 20;

/// One direction. Positions only grow; the peer may write anything, so they are
/// checked each time.
struct Ring {
  alignas(64) std::atomic<uint64_t> written;
  alignas(64) std::atomic<uint64_t> read;
  alignas(64) std::atomic<uint32_t> writtenEvent;
  std::atomic<uint32_t> readEvent;
  alignas(64) std::byte data[kRingBytes];
};
struct Shared {
  Ring toListener, toConnector;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

void futexWait(std::atomic<uint32_t> &word, uint32_t seen) {
  timespec limit{0, 20'000'000}; // look at the socket now and then
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &limit, nullptr, 0);
}
void futexWake(std::atomic<uint32_t> &word) {
  word.fetch_add(1, std::memory_order_release);
  syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

class SharedMemoryChannel : public Channel {
public:
  SharedMemoryChannel(int socket, int memory, bool listener, std::string name)
      : socket(socket), name(std::move(name)) {
    void *mapped = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED, memory, 0);
    if (mapped == MAP_FAILED) {
      ::close(socket);
      throw Error("{}: cannot map shared memory", this->name);
    }
    shared = static_cast<Shared *>(mapped);
    out = listener ? &shared->toConnector : &shared->toListener;
    in = listener ? &shared->toListener : &shared->toConnector;
  }
  ~SharedMemoryChannel() override {
    ::close(socket);
    munmap(shared, sizeof(Shared));
  }

  void send(std::span<const std::span<const std::byte>> parts) override {
    uint64_t size = 0;
    for (auto part : parts)
      size += part.size();
    write(std::as_bytes(std::span(&size, 1)));
    for (auto part : parts)
      write(part);
  }

  void receive(std::vector<std::byte> &frame, double timeoutSeconds) override {
    uint64_t size = 0;
    read(std::as_writable_bytes(std::span(&size, 1)), timeoutSeconds);
    if (size > kMaxFrame)
      throw Error("{}: sent a frame of {} bytes", name, size);
    frame.resize(size);
    read(frame, 0);
  }

  void close() override {
    closed = true;
    ::shutdown(socket, SHUT_RDWR);
  }
  std::string peer() const override { return name; }

private:
  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      uint64_t written = out->written.load(std::memory_order_relaxed);
      uint32_t event = out->readEvent.load(std::memory_order_acquire);
      uint64_t used = written - out->read.load(std::memory_order_acquire);
      if (used > kRingBytes)
        throw Error("{}: shared memory is inconsistent", name);
      if (used == kRingBytes) {
        wait(out->readEvent, event, 0);
        continue;
      }
      size_t at = written % kRingBytes;
      size_t count = std::min(
          {bytes.size(), size_t(kRingBytes - used), size_t(kRingBytes - at)});
      std::memcpy(out->data + at, bytes.data(), count);
      out->written.store(written + count, std::memory_order_release);
      futexWake(out->writtenEvent);
      bytes = bytes.subspan(count);
    }
  }

  void read(std::span<std::byte> bytes, double timeoutSeconds) {
    auto start = std::chrono::steady_clock::now();
    for (unsigned spins = 0; !bytes.empty();) {
      uint64_t position = in->read.load(std::memory_order_relaxed);
      uint32_t event = in->writtenEvent.load(std::memory_order_acquire);
      uint64_t ready = in->written.load(std::memory_order_acquire) - position;
      if (ready > kRingBytes)
        throw Error("{}: shared memory is inconsistent", name);
      if (ready == 0) {
        double waited = std::chrono::duration<double>(
                            std::chrono::steady_clock::now() - start)
                            .count();
        if (timeoutSeconds > 0 && waited > timeoutSeconds)
          throw Error("{}: no answer in {} s", name, timeoutSeconds);
        if (++spins > 100)
          wait(in->writtenEvent, event, timeoutSeconds);
        continue;
      }
      size_t at = position % kRingBytes;
      size_t count =
          std::min({bytes.size(), size_t(ready), size_t(kRingBytes - at)});
      std::memcpy(bytes.data(), in->data + at, count);
      in->read.store(position + count, std::memory_order_release);
      futexWake(in->readEvent);
      bytes = bytes.subspan(count);
    }
  }

  /// Sleeps until the peer moved or is gone.
  void wait(std::atomic<uint32_t> &word, uint32_t seen, double) {
    futexWait(word, seen);
    pollfd poll{socket, POLLIN | POLLRDHUP, 0};
    if (closed || (::poll(&poll, 1, 0) > 0 &&
                   (poll.revents & (POLLHUP | POLLRDHUP | POLLERR))))
      if (word.load(std::memory_order_acquire) == seen)
        throw Error("{}: the connection is closed", name);
  }

  int socket;
  std::string name;
  Shared *shared;
  Ring *out, *in;
  std::atomic<bool> closed = false;
};

int makeSocket() {
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    throw Error("cannot make a socket: {}", std::strerror(errno));
  return fd;
}

sockaddr_un socketAddress(const std::string &path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    throw Error("unix:{}: the path is too long for a socket", path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

int listenOn(const Address &address) {
  int fd = makeSocket();
  sockaddr_un name = socketAddress(address.path);
  unlink(address.path.c_str());
  // The socket is for this user alone from the moment it exists.
  mode_t mask = umask(0177);
  bool bound = bind(fd, reinterpret_cast<sockaddr *>(&name), sizeof(name)) == 0;
  umask(mask);
  if (bound && ::listen(fd, 8) == 0)
    return fd;
  std::string reason = std::strerror(errno);
  ::close(fd);
  throw Error("{}: cannot listen: {}", address.text, reason);
}

class SharedMemoryListener : public SocketListener {
public:
  explicit SharedMemoryListener(const Address &address)
      : SocketListener(listenOn(address), address.text), path(address.path) {}
  ~SharedMemoryListener() override { unlink(path.c_str()); }

protected:
  std::unique_ptr<Channel> admit(int peer) override {
    ucred user{};
    socklen_t size = sizeof(user);
    if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &user, &size) != 0 ||
        user.uid != geteuid()) {
      ::close(peer);
      throw Error("user {} is not this worker's", user.uid);
    }
    int memory = receiveDescriptor(peer);
    struct stat info{};
    if (memory < 0 || fstat(memory, &info) != 0 ||
        info.st_size < off_t(sizeof(Shared))) {
      if (memory >= 0)
        ::close(memory);
      ::close(peer);
      throw Error("a local peer did not pass its memory");
    }
    auto channel =
        std::make_unique<SharedMemoryChannel>(peer, memory, true, text);
    ::close(memory);
    return channel;
  }

private:
  static int receiveDescriptor(int peer) {
    timeval limit{2, 0};
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    char byte;
    iovec data{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    if (recvmsg(peer, &message, MSG_CMSG_CLOEXEC) != 1)
      return -1;
    cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS ||
        header->cmsg_len != CMSG_LEN(sizeof(int)))
      return -1;
    int memory;
    std::memcpy(&memory, CMSG_DATA(header), sizeof(int));
    // A peer that shrank the file would make us fault: it must be sealed.
    int seals = fcntl(memory, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
      ::close(memory);
      return -1;
    }
    return memory;
  }

  std::string path;
};
} // namespace

std::unique_ptr<Listener>
isthmus::rt::listenSharedMemory(const Address &address) {
  return std::make_unique<SharedMemoryListener>(address);
}

std::unique_ptr<Channel>
isthmus::rt::connectSharedMemory(const Address &address,
                                 double timeoutSeconds) {
  int fd = connectWithin(address, timeoutSeconds, [&] {
    int attempt = makeSocket();
    sockaddr_un name = socketAddress(address.path);
    if (::connect(attempt, reinterpret_cast<sockaddr *>(&name), sizeof(name)) ==
        0)
      return attempt;
    int error = errno;
    ::close(attempt);
    errno = error;
    return -1;
  });
  int memory = memfd_create("isthmus-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0 || ftruncate(memory, sizeof(Shared)) != 0 ||
      fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    ::close(fd);
    throw Error("{}: cannot make shared memory", address.text);
  }
  char byte = 1;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &memory, sizeof(int));
  bool sent = sendmsg(fd, &message, MSG_NOSIGNAL) == 1;
  auto channel =
      std::make_unique<SharedMemoryChannel>(fd, memory, false, address.text);
  ::close(memory);
  if (!sent)
    throw Error("{}: the worker hung up", address.text);
  return channel;
}
