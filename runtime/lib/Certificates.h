//===- Certificates.h - X.509 with RAII, for clusters -----------*- C++ -*-===//
#pragma once

#include <filesystem>
#include <memory>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string>

namespace isthmus::rt {

struct FreeX509 {
  void operator()(EVP_PKEY *key) const { EVP_PKEY_free(key); }
  void operator()(X509 *certificate) const { X509_free(certificate); }
  void operator()(X509_REQ *request) const { X509_REQ_free(request); }
  void operator()(BIO *bio) const { BIO_free_all(bio); }
  void operator()(X509_EXTENSION *e) const { X509_EXTENSION_free(e); }
};
template <typename T> using Owned = std::unique_ptr<T, FreeX509>;

/// A new Ed25519 key.
Owned<EVP_PKEY> makeKey();

/// The certificate and key with which a cluster admits members.
struct Authority {
  Owned<EVP_PKEY> key;
  Owned<X509> certificate;

  /// A new one, signed by itself.
  static Authority make();
  /// Reads authority.pem and ca.pem. Throws Error if the folder has none.
  static Authority read(const std::filesystem::path &folder);

  /// A certificate for the owner of `key`, valid for ten years.
  Owned<X509> sign(const std::string &name, EVP_PKEY *key) const;
};

/// Write PEM files that must not exist yet; keys with mode 0600.
void writeKey(const std::filesystem::path &path, EVP_PKEY *key);
void writeCertificate(const std::filesystem::path &path, X509 *certificate);

} // namespace isthmus::rt
