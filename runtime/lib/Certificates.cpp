//===- Certificates.cpp - X.509 with RAII, for clusters -------------------===//
#include "Certificates.h"

#include "isthmus/runtime/Crypto.h"
#include "isthmus/runtime/Error.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

using namespace isthmus::rt;
namespace fs = std::filesystem;

namespace {
constexpr long kYears = 10L * 365 * 24 * 3600;

/// Without an issuer the certificate is its own: that of an authority.
Owned<X509> makeCertificate(const std::string &name, EVP_PKEY *key,
                            X509 *issuer, EVP_PKEY *issuerKey) {
  Owned<X509> certificate(X509_new());
  X509_set_version(certificate.get(), 2);
  uint8_t serial[8];
  randomBytes(serial);
  uint64_t number = 0;
  for (uint8_t byte : serial)
    number = number << 8 | byte;
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()),
                          number >> 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), kYears);
  X509_set_pubkey(certificate.get(), key);
  X509_NAME *subject = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(
      subject, "CN", MBSTRING_UTF8,
      reinterpret_cast<const unsigned char *>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate.get(),
                       issuer ? X509_get_subject_name(issuer) : subject);
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer ? issuer : certificate.get(),
                 certificate.get(), nullptr, nullptr, 0);
  auto extend = [&](int nid, const char *value) {
    Owned<X509_EXTENSION> extension(
        X509V3_EXT_conf_nid(nullptr, &context, nid, value));
    if (!extension || X509_add_ext(certificate.get(), extension.get(), -1) != 1)
      throw Error("cannot make a certificate");
  };
  extend(NID_basic_constraints,
         issuer ? "critical,CA:FALSE" : "critical,CA:TRUE,pathlen:0");
  extend(NID_key_usage,
         issuer ? "critical,digitalSignature" : "critical,keyCertSign");
  if (X509_sign(certificate.get(), issuerKey, nullptr) == 0)
    throw Error("cannot sign a certificate");
  return certificate;
}

template <typename Write>
void writePem(const fs::path &path, bool secret, Write write) {
  Owned<BIO> bio(BIO_new(BIO_s_mem()));
  write(bio.get());
  char *text = nullptr;
  long size = BIO_get_mem_data(bio.get(), &text);
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                secret ? 0600 : 0644);
  bool done = fd >= 0 && ::write(fd, text, size_t(size)) == size;
  if (fd >= 0)
    close(fd);
  if (!done)
    throw Error("{}: cannot write, or exists already", path.string());
}

} // namespace

Owned<EVP_PKEY> isthmus::rt::makeKey() {
  Owned<EVP_PKEY> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (!key)
    throw Error("cannot make a key");
  return key;
}

Authority Authority::make() {
  Owned<EVP_PKEY> key = makeKey();
  Owned<X509> certificate =
      makeCertificate("isthmus cluster", key.get(), nullptr, key.get());
  return {std::move(key), std::move(certificate)};
}

Authority Authority::read(const fs::path &folder) {
  Owned<BIO> keyFile(BIO_new_file((folder / "authority.pem").c_str(), "r"));
  Owned<BIO> certFile(BIO_new_file((folder / "ca.pem").c_str(), "r"));
  Authority authority;
  if (keyFile)
    authority.key.reset(
        PEM_read_bio_PrivateKey(keyFile.get(), nullptr, nullptr, nullptr));
  if (certFile)
    authority.certificate.reset(
        PEM_read_bio_X509(certFile.get(), nullptr, nullptr, nullptr));
  if (!authority.key || !authority.certificate)
    throw Error("{}: is not a cluster's folder; make one with 'isthmus cluster "
                "create'",
                folder.string());
  return authority;
}

Owned<X509> Authority::sign(const std::string &name, EVP_PKEY *member) const {
  return makeCertificate(name, member, certificate.get(), key.get());
}

void isthmus::rt::writeKey(const fs::path &path, EVP_PKEY *key) {
  writePem(path, true, [&](BIO *bio) {
    PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  });
}

void isthmus::rt::writeCertificate(const fs::path &path, X509 *certificate) {
  writePem(path, false,
           [&](BIO *bio) { PEM_write_bio_X509(bio, certificate); });
}
