//===- BundleWriter.h - writes bundles as a stream --------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Bundle.h"

#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace isthmus {

/// Writes a bundle beside its final place and moves it there when it is
/// complete: a failed compilation leaves nothing. Blobs are digested as they
/// pass.
class BundleWriter {
public:
  explicit BundleWriter(std::filesystem::path path);
  ~BundleWriter();
  BundleWriter(const BundleWriter &) = delete;
  BundleWriter &operator=(const BundleWriter &) = delete;

  /// Starts a blob; its index in the manifest is returned.
  uint32_t beginBlob(const std::string &name);
  void append(std::span<const std::byte> bytes);
  /// Fills with zeros up to a multiple; returns the offset in the blob.
  uint64_t align(uint64_t multiple);
  void endBlob();

  /// Adds the blobs to `manifest`, signs, and moves the file into place.
  void finish(bundle::Manifest &manifest, rt::KeyStore &keys);

private:
  void writeAll(const void *data, size_t size);
  void flush();
  void padFile();
  void digestChunk();

  std::filesystem::path target, temporary;
  int fd = -1;
  uint64_t position = 0; ///< in the file, with what is in `buffer`
  /// Written whole, from multiples of its size on: Linux keeps a file in pages
  /// of the size that it was written in, 2 MB at most.
  std::vector<char> buffer;
  std::vector<bundle::Blob> blobs;
  std::vector<std::byte> chunk; ///< of the open blob, not digested yet
};

} // namespace isthmus
