//===- BundleWriter.cpp - writes bundles as a stream ----------------------===//
#include "isthmus/Bundle/BundleWriter.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

using namespace isthmus;
using rt::Error;

static constexpr size_t kBuffer = size_t(8) << 20;

BundleWriter::BundleWriter(std::filesystem::path path)
    : target(std::move(path)) {
  // The last step would fail, after all weights were written.
  if (std::error_code error; std::filesystem::is_directory(target, error))
    throw Error("{}: is a folder; name the file that the bundle becomes",
                target.string());
  temporary = target;
  temporary += fmt::format(".partial-{}", getpid());
  fd = open(temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0)
    throw Error("{}: cannot write: {}", target.string(), std::strerror(errno));
  buffer.reserve(kBuffer);
  rt::BundleHeader empty{};
  writeAll(&empty, sizeof(empty));
}

BundleWriter::~BundleWriter() {
  if (fd < 0)
    return;
  close(fd);
  unlink(temporary.c_str());
}

void BundleWriter::writeAll(const void *data, size_t size) {
  const char *bytes = static_cast<const char *>(data);
  position += size;
  while (size > 0) {
    const size_t part = std::min(size, kBuffer - buffer.size());
    buffer.insert(buffer.end(), bytes, bytes + part);
    bytes += part;
    size -= part;
    if (buffer.size() == kBuffer)
      flush();
  }
}

void BundleWriter::flush() {
  const char *bytes = buffer.data();
  size_t size = buffer.size();
  while (size > 0) {
    ssize_t written = write(fd, bytes, size);
    if (written < 0 && errno == EINTR)
      continue;
    if (written <= 0)
      throw Error("{}: cannot write: {}", temporary.string(),
                  std::strerror(errno));
    bytes += written;
    size -= size_t(written);
  }
  buffer.clear();
}

void BundleWriter::padFile() {
  static const char zeros[rt::kBundleAlignment] = {};
  uint64_t over = position % rt::kBundleAlignment;
  if (over)
    writeAll(zeros, rt::kBundleAlignment - over);
}

void BundleWriter::digestChunk() {
  rt::Digest digest = rt::sha256(chunk);
  blobs.back().add_chunk_sha256(digest.data(), digest.size());
  chunk.clear();
}

uint32_t BundleWriter::beginBlob(const std::string &name) {
  padFile();
  bundle::Blob &blob = blobs.emplace_back();
  blob.set_name(name);
  blob.set_offset(position);
  blob.set_chunk_bytes(rt::kChunkBytes);
  chunk.reserve(rt::kChunkBytes);
  return uint32_t(blobs.size() - 1);
}

void BundleWriter::append(std::span<const std::byte> bytes) {
  writeAll(bytes.data(), bytes.size());
  while (!bytes.empty()) {
    size_t part = std::min(bytes.size(), rt::kChunkBytes - chunk.size());
    chunk.insert(chunk.end(), bytes.begin(), bytes.begin() + ptrdiff_t(part));
    bytes = bytes.subspan(part);
    if (chunk.size() == rt::kChunkBytes)
      digestChunk();
  }
}

uint64_t BundleWriter::align(uint64_t multiple) {
  static const std::byte zeros[rt::kBundleAlignment] = {};
  uint64_t offset = position - blobs.back().offset();
  uint64_t padding = (multiple - offset % multiple) % multiple;
  append(std::span(zeros).first(padding));
  return offset + padding;
}

void BundleWriter::endBlob() {
  if (!chunk.empty())
    digestChunk();
  blobs.back().set_size(position - blobs.back().offset());
}

void BundleWriter::finish(bundle::Manifest &manifest, rt::KeyStore &keys) {
  for (bundle::Blob &blob : blobs)
    *manifest.add_blobs() = std::move(blob);
  padFile();
  std::string text;
  if (!manifest.SerializeToString(&text))
    throw Error("{}: the manifest cannot be written", target.string());
  rt::BundleHeader header{};
  std::memcpy(header.magic, "ISTHMUS", 8);
  header.version = rt::kBundleVersion;
  header.manifestOffset = position;
  header.manifestSize = text.size();
  header.fileSize = position + text.size();
  writeAll(text.data(), text.size());
  rt::checkManifest(target.string(), manifest, header.fileSize);

  // The signature covers the key it is made with: sign once to learn the key.
  std::byte probe{};
  rt::PublicKey key = keys.sign({&probe, 1}).second;
  std::memcpy(header.publicKey, key.data(), key.size());
  std::vector<std::byte> message(rt::kSignedHeaderBytes + text.size());
  std::memcpy(message.data(), &header, rt::kSignedHeaderBytes);
  std::memcpy(message.data() + rt::kSignedHeaderBytes, text.data(),
              text.size());
  rt::Signature signature = keys.sign(message).first;
  std::memcpy(header.signature, signature.data(), signature.size());
  flush();
  if (pwrite(fd, &header, sizeof(header), 0) != ssize_t(sizeof(header)) ||
      fsync(fd) != 0)
    throw Error("{}: cannot write: {}", temporary.string(),
                std::strerror(errno));
  std::filesystem::rename(temporary, target);
  close(fd);
  fd = -1;
}
