//===- Crypto.cpp - digests, signatures, and whom this user trusts --------===//
#include "isthmus/runtime/Crypto.h"

#include "isthmus/runtime/Error.h"

#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <memory>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <unistd.h>

using namespace isthmus::rt;
namespace fs = std::filesystem;

namespace {
struct Free {
  void operator()(EVP_PKEY *key) const { EVP_PKEY_free(key); }
  void operator()(EVP_MD_CTX *context) const { EVP_MD_CTX_free(context); }
  void operator()(BIO *bio) const { BIO_free_all(bio); }
};
template <typename T> using Owned = std::unique_ptr<T, Free>;

const unsigned char *bytesOf(std::span<const std::byte> span) {
  return reinterpret_cast<const unsigned char *>(span.data());
}
} // namespace

Digest isthmus::rt::sha256(std::span<const std::byte> bytes) {
  Digest digest;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr,
                 EVP_sha256(), nullptr) != 1)
    throw Error("SHA-256 failed");
  return digest;
}

std::string isthmus::rt::toHex(std::span<const uint8_t> bytes) {
  std::string text;
  for (uint8_t byte : bytes)
    text += fmt::format("{:02x}", byte);
  return text;
}

std::string isthmus::rt::toBase64(std::span<const std::byte> bytes) {
  // OpenSSL ends it with a zero.
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int length = EVP_EncodeBlock(
      reinterpret_cast<unsigned char *>(text.data()),
      reinterpret_cast<const unsigned char *>(bytes.data()), int(bytes.size()));
  text.resize(size_t(length));
  return text;
}

std::optional<std::vector<std::byte>>
isthmus::rt::fromBase64(std::string_view text) {
  const size_t padding = text.size() - std::min(text.find('='), text.size());
  if (text.size() % 4 != 0 || text.size() > (1u << 30) || padding > 2)
    return std::nullopt;
  std::vector<std::byte> bytes(text.size() / 4 * 3);
  // OpenSSL takes blanks at both ends, and counts what padding stands for.
  const int length = EVP_DecodeBlock(
      reinterpret_cast<unsigned char *>(bytes.data()),
      reinterpret_cast<const unsigned char *>(text.data()), int(text.size()));
  if (length != int(bytes.size()))
    return std::nullopt;
  bytes.resize(bytes.size() - padding);
  return bytes;
}

void isthmus::rt::randomBytes(std::span<uint8_t> out) {
  if (RAND_bytes(out.data(), int(out.size())) != 1)
    throw Error("the operating system gave no random bytes");
}

bool isthmus::rt::verifySignature(const PublicKey &key,
                                  std::span<const std::byte> message,
                                  const Signature &signature) {
  Owned<EVP_PKEY> publicKey(EVP_PKEY_new_raw_public_key(
      EVP_PKEY_ED25519, nullptr, key.data(), key.size()));
  Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  return publicKey && context &&
         EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr,
                              publicKey.get()) == 1 &&
         EVP_DigestVerify(context.get(), signature.data(), signature.size(),
                          bytesOf(message), message.size()) == 1;
}

static fs::path defaultFolder() {
  if (const char *home = std::getenv("ISTHMUS_HOME"); home && *home)
    return home;
  if (const char *config = std::getenv("XDG_CONFIG_HOME"); config && *config)
    return fs::path(config) / "isthmus";
  if (const char *home = std::getenv("HOME"); home && *home)
    return fs::path(home) / ".config" / "isthmus";
  throw Error("no place for keys: set ISTHMUS_HOME or HOME");
}

KeyStore::KeyStore() : folder(defaultFolder()) {}

/// Creates `path` with mode 0600 and the PEM of `key`; gives up if it exists.
static bool writeKey(const fs::path &path, EVP_PKEY *key) {
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    return false;
  Owned<BIO> bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr,
                           nullptr);
  char *text = nullptr;
  long size = BIO_get_mem_data(bio.get(), &text);
  bool done = write(fd, text, size_t(size)) == size;
  close(fd);
  return done;
}

static Owned<EVP_PKEY> loadOrCreate(const fs::path &folder) {
  fs::create_directories(folder);
  const fs::path path = folder / "signing-key.pem";
  if (!fs::exists(path)) {
    Owned<EVP_PKEY> fresh(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    // Another process may be first; then its key is read below.
    if (fresh)
      writeKey(path, fresh.get());
  }
  Owned<BIO> bio(BIO_new_file(path.c_str(), "r"));
  Owned<EVP_PKEY> key(
      bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr)
          : nullptr);
  if (!key)
    throw Error("{}: cannot read the signing key; remove it to have a new one "
                "made",
                path.string());
  return key;
}

static PublicKey publicHalf(EVP_PKEY *key) {
  PublicKey result;
  size_t size = result.size();
  if (EVP_PKEY_get_raw_public_key(key, result.data(), &size) != 1 ||
      size != result.size())
    throw Error("the signing key is not an Ed25519 key");
  return result;
}

std::pair<Signature, PublicKey>
KeyStore::sign(std::span<const std::byte> message) {
  Owned<EVP_PKEY> key = loadOrCreate(folder);
  PublicKey publicKey = publicHalf(key.get());
  Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  Signature signature;
  size_t size = signature.size();
  if (EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) !=
          1 ||
      EVP_DigestSign(context.get(), signature.data(), &size, bytesOf(message),
                     message.size()) != 1)
    throw Error("signing failed");
  trust(publicKey);
  return {signature, publicKey};
}

bool KeyStore::trusts(const PublicKey &key) const {
  return fs::exists(folder / "trusted" / toHex(key));
}

void KeyStore::trust(const PublicKey &key) {
  fs::create_directories(folder / "trusted");
  std::ofstream file(folder / "trusted" / toHex(key));
  if (!file)
    throw Error("{}: cannot write", (folder / "trusted").string());
}
