//===- Cluster.cpp - how members come into a cluster ----------------------===//
#include "isthmus/runtime/Cluster.h"

#include "Certificates.h"
#include "Channels.h"
#include "isthmus/runtime/Crypto.h"
#include "isthmus/runtime/Error.h"
#include "wire.pb.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <openssl/crypto.h>
#include <thread>

using namespace isthmus;
using namespace isthmus::rt;
namespace fs = std::filesystem;

void isthmus::rt::createCluster(const fs::path &folder) {
  fs::create_directories(folder);
  Authority authority = Authority::make();
  writeKey(folder / "authority.pem", authority.key.get());
  writeCertificate(folder / "ca.pem", authority.certificate.get());
}

static void checkName(const std::string &name) {
  auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  };
  if (name.empty() || name.size() > 64 ||
      !std::all_of(name.begin(), name.end(), allowed))
    throw Error("'{}' cannot be a member's name: 1 to 64 letters, digits, '-', "
                "'_' and '.'",
                name);
}

void isthmus::rt::addMember(const fs::path &cluster, const fs::path &member,
                            const std::string &name) {
  checkName(name);
  Authority authority = Authority::read(cluster);
  fs::create_directories(member);
  Owned<EVP_PKEY> key = makeKey();
  writeKey(member / "key.pem", key.get());
  writeCertificate(member / "cert.pem", authority.sign(name, key.get()).get());
  writeCertificate(member / "ca.pem", authority.certificate.get());
}

//===----------------------------------------------------------------------===//
// Invitations
//===----------------------------------------------------------------------===//
//
// The token is a secret and the digest of a certificate made for this one
// invitation. The joining side knows by the digest that nobody stands between,
// the inviting side by the secret that the right one asks. Private keys do not
// travel: the joining side sends a signing request.

namespace {
constexpr size_t kSecretBytes = 16;
/// Strangers can reach an invitation: what they send is kept small.
constexpr uint64_t kMaxJoinFrame = 64 << 10;

struct Token {
  std::array<uint8_t, kSecretBytes> secret;
  Digest certificate;

  std::string text() const { return toHex(secret) + toHex(certificate); }
  static Token parse(const std::string &text) {
    Token token;
    std::array<uint8_t, kSecretBytes + sizeof(Digest)> bytes;
    bool good = text.size() == 2 * bytes.size();
    for (size_t i = 0; good && i < bytes.size(); ++i) {
      const char *from = text.data() + 2 * i;
      auto [end, error] = std::from_chars(from, from + 2, bytes[i], 16);
      good = error == std::errc() && end == from + 2;
    }
    if (!good)
      throw Error("this is not a token of 'isthmus cluster invite' ({} hex "
                  "digits)",
                  2 * bytes.size());
    std::copy_n(bytes.begin(), kSecretBytes, token.secret.begin());
    std::copy_n(bytes.begin() + kSecretBytes, token.certificate.size(),
                token.certificate.begin());
    return token;
  }
};

/// What `encode(object, &buffer)` writes, OpenSSL's way of making DER.
template <typename T, typename Encode>
std::string toDer(T *object, Encode encode) {
  unsigned char *bytes = nullptr;
  int size = encode(object, &bytes);
  if (size < 0)
    throw Error("cannot encode a certificate");
  std::string der(reinterpret_cast<char *>(bytes), size_t(size));
  OPENSSL_free(bytes);
  return der;
}

template <typename T, typename Decode>
Owned<T> fromDer(const std::string &der, Decode decode) {
  auto *bytes = reinterpret_cast<const unsigned char *>(der.data());
  Owned<T> object(decode(nullptr, &bytes, long(der.size())));
  if (!object)
    throw Error("sent a malformed certificate or request");
  return object;
}

Digest digestOf(X509 *certificate) {
  std::string der = toDer(certificate, i2d_X509);
  return sha256(std::as_bytes(std::span(der)));
}

void sendMessage(Channel &channel,
                 const google::protobuf::MessageLite &message) {
  std::string text = message.SerializeAsString();
  std::span<const std::byte> part = std::as_bytes(std::span(text));
  channel.send({&part, 1});
}

void receiveMessage(Channel &channel, google::protobuf::MessageLite &message) {
  std::vector<std::byte> frame;
  channel.receive(frame, 10);
  if (!message.ParseFromArray(frame.data(), int(frame.size())))
    throw Error("{}: sent a malformed message", channel.peer());
}

/// Accepts the one certificate whose digest the token has.
int checkPinned(X509_STORE_CTX *store, void *pinned) {
  X509 *certificate = X509_STORE_CTX_get0_cert(store);
  return certificate &&
         digestOf(certificate) == *static_cast<const Digest *>(pinned);
}
} // namespace

struct Invitation::State {
  Authority authority;
  Token token;
  std::unique_ptr<Listener> listener;

  /// Checks a request and answers it. Throws Error if the secret is wrong.
  std::string admit(Channel &channel) {
    wire::Join join;
    receiveMessage(channel, join);
    if (join.secret().size() != kSecretBytes ||
        CRYPTO_memcmp(join.secret().data(), token.secret.data(),
                      kSecretBytes) != 0)
      throw Error("a peer came with a wrong token");
    checkName(join.name());
    auto request = fromDer<X509_REQ>(join.request(), d2i_X509_REQ);
    EVP_PKEY *key = X509_REQ_get0_pubkey(request.get());
    if (!key || X509_REQ_verify(request.get(), key) != 1)
      throw Error("'{}' does not own the key it asks for", join.name());
    wire::Welcome welcome;
    welcome.set_certificate(
        toDer(authority.sign(join.name(), key).get(), i2d_X509));
    welcome.set_authority(toDer(authority.certificate.get(), i2d_X509));
    sendMessage(channel, welcome);
    return join.name();
  }
};

Invitation::Invitation(const fs::path &cluster, const Address &address)
    : state(new State) {
  if (address.kind != Address::Kind::Tls)
    throw Error("{}: an invitation listens on tls:host:port", address.text);
  state->authority = Authority::read(cluster);
  // A certificate of an authority of its own: it is good for nothing else.
  Authority once = Authority::make();
  TlsContext context = makeTlsContext();
  if (SSL_CTX_use_certificate(context.get(), once.certificate.get()) != 1 ||
      SSL_CTX_use_PrivateKey(context.get(), once.key.get()) != 1)
    throw Error("cannot prepare an invitation");
  randomBytes(state->token.secret);
  state->token.certificate = digestOf(once.certificate.get());
  state->listener = listenTls(address, std::move(context), kMaxJoinFrame);
}

Invitation::~Invitation() = default;
std::string Invitation::address() const { return state->listener->address(); }
std::string Invitation::token() const { return state->token.text(); }

std::string Invitation::admitOne(
    double seconds, const std::function<void(const std::string &)> &onRefused) {
  state->listener->onRefused = onRefused;
  std::mutex mutex;
  std::condition_variable done;
  bool finished = false;
  std::thread timer([&] {
    std::unique_lock lock(mutex);
    if (!done.wait_for(lock, std::chrono::duration<double>(seconds),
                       [&] { return finished; }))
      state->listener->close();
  });
  std::string name;
  while (name.empty()) {
    auto channel = state->listener->accept();
    if (!channel)
      break;
    try {
      name = state->admit(*channel);
    } catch (const Error &error) {
      onRefused(error.what());
    }
  }
  {
    std::lock_guard lock(mutex);
    finished = true;
  }
  done.notify_one();
  timer.join();
  if (name.empty())
    throw Error("nobody joined in time; invite again");
  return name;
}

void isthmus::rt::joinCluster(const fs::path &member, const std::string &name,
                              const Address &from, const std::string &text) {
  Token token = Token::parse(text);
  checkName(name);
  if (fs::exists(member / "key.pem"))
    throw Error("{}: is a member's folder already; choose another",
                member.string());
  TlsContext context = makeTlsContext();
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_cert_verify_callback(context.get(), checkPinned,
                                   &token.certificate);
  Owned<EVP_PKEY> key = makeKey();
  Owned<X509_REQ> request(X509_REQ_new());
  if (X509_REQ_set_pubkey(request.get(), key.get()) != 1 ||
      X509_REQ_sign(request.get(), key.get(), nullptr) == 0)
    throw Error("cannot make a signing request");
  wire::Join join;
  join.set_secret(token.secret.data(), token.secret.size());
  join.set_name(name);
  join.set_request(toDer(request.get(), i2d_X509_REQ));
  wire::Welcome welcome;
  try {
    auto channel = connectTls(from, std::move(context), 2, kMaxJoinFrame);
    sendMessage(*channel, join);
    receiveMessage(*channel, welcome);
  } catch (const Error &error) {
    throw Error("{} (a token is good for one member and a limited time; ask "
                "for a new one with 'isthmus cluster invite')",
                error.what());
  }
  auto certificate = fromDer<X509>(welcome.certificate(), d2i_X509);
  auto authority = fromDer<X509>(welcome.authority(), d2i_X509);
  if (X509_verify(certificate.get(), X509_get0_pubkey(authority.get())) != 1 ||
      EVP_PKEY_eq(X509_get0_pubkey(certificate.get()), key.get()) != 1)
    throw Error("{}: answered with a certificate that does not fit", from.text);
  fs::create_directories(member);
  writeKey(member / "key.pem", key.get());
  writeCertificate(member / "cert.pem", certificate.get());
  writeCertificate(member / "ca.pem", authority.get());
}
