//===- MappedFile.h - a read-only memory-mapped file ------------*- C++ -*-===//
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace isthmus::rt {

/// Maps a whole regular file, read-only. Throws Error.
class MappedFile {
public:
  explicit MappedFile(const std::filesystem::path &path);
  ~MappedFile();
  MappedFile(MappedFile &&other) noexcept;
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;
  MappedFile &operator=(MappedFile &&) = delete;

  std::span<const std::byte> bytes() const { return {data, length}; }
  const std::filesystem::path &path() const { return name; }

  /// Bytes [offset, offset + size); throws Error if they leave the file. `what`
  /// names them in the message.
  std::span<const std::byte> slice(uint64_t offset, uint64_t size,
                                   std::string_view what) const;

  /// Lets the kernel take the pages of a range away: they no longer count as
  /// resident, and are read again when they are used again.
  void release(uint64_t offset, uint64_t size) const;

  /// Asks for huge pages: what is read from the disk from now on is kept in
  /// them, where the file system can. A wish.
  void preferHugePages() const;

private:
  std::filesystem::path name;
  const std::byte *data = nullptr;
  size_t length = 0;
};

} // namespace isthmus::rt
