//===- Bundle.h - opens and checks bundles ----------------------*- C++ -*-===//
//
// docs/bundle-format.md is the specification.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "bundle.pb.h"
#include "isthmus/runtime/Crypto.h"
#include "isthmus/runtime/MappedFile.h"

#include <span>

namespace isthmus::rt {

inline constexpr uint64_t kBundleAlignment = 4096;
inline constexpr uint64_t kChunkBytes = 4 << 20;
inline constexpr uint32_t kBundleVersion = 1;

/// The first bytes of a bundle; all integers little-endian.
struct BundleHeader {
  char magic[8]; ///< "ISTHMUS\0"
  uint32_t version;
  uint32_t reserved;
  uint64_t fileSize;
  uint64_t manifestOffset;
  uint64_t manifestSize;
  uint8_t publicKey[32];
  /// Over the header up to and with publicKey, followed by the manifest.
  uint8_t signature[64];
};
static_assert(sizeof(BundleHeader) == 136);
inline constexpr size_t kSignedHeaderBytes = 72;

/// A mapped bundle whose header, signature and manifest are checked: every
/// index in the manifest is in range, every offset inside the file. Contents of
/// blobs are checked by `verify`.
class Bundle {
public:
  /// Throws Error if anything is wrong with the file.
  explicit Bundle(const std::filesystem::path &path);

  const bundle::Manifest &manifest() const { return content; }
  const PublicKey &signer() const { return key; }
  const std::filesystem::path &path() const { return file.path(); }
  std::span<const std::byte> blob(uint32_t index) const;
  std::span<const std::byte> weight(uint32_t index) const;

  /// Throws unless the signer is trusted by this user.
  void requireTrust(const KeyStore &keys) const;

  /// A range of a blob whose digests are to be checked.
  struct Range {
    uint32_t blob;
    uint64_t offset, size;
  };
  /// Checks the digests of all chunks that the ranges touch, on `threads`
  /// threads. Throws Error naming the first damaged chunk.
  void verify(std::span<const Range> ranges, unsigned threads) const;

private:
  MappedFile file;
  bundle::Manifest content;
  PublicKey key;
};

/// Values in a row of a program's result. Bundles of before say the vocabulary
/// alone.
inline uint64_t outputFeatures(const bundle::Program &program) {
  return program.output_features() ? program.output_features()
                                   : program.vocab_size();
}

/// Checks every index and size of a manifest; throws Error. `fileSize` bounds
/// the blobs.
void checkManifest(const std::string &where, const bundle::Manifest &manifest,
                   uint64_t fileSize);

} // namespace isthmus::rt
