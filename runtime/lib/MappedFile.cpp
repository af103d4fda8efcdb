//===- MappedFile.cpp - a read-only memory-mapped file --------------------===//
#include "isthmus/runtime/MappedFile.h"

#include "isthmus/runtime/Error.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace isthmus::rt;

MappedFile::MappedFile(const std::filesystem::path &path) : name(path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    throw Error("{}: {}", path.string(), std::strerror(errno));
  struct stat info{};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    throw Error("{}: not a regular file", path.string());
  }
  length = static_cast<size_t>(info.st_size);
  if (length > 0) {
    void *mapped = mmap(nullptr, length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapped == MAP_FAILED) {
      int error = errno;
      close(fd);
      throw Error("{}: cannot map: {}", path.string(), std::strerror(error));
    }
    data = static_cast<const std::byte *>(mapped);
  }
  close(fd);
}

MappedFile::MappedFile(MappedFile &&other) noexcept
    : name(std::move(other.name)), data(other.data), length(other.length) {
  other.data = nullptr;
  other.length = 0;
}

MappedFile::~MappedFile() {
  if (data)
    munmap(const_cast<std::byte *>(data), length);
}

std::span<const std::byte> MappedFile::slice(uint64_t offset, uint64_t size,
                                             std::string_view what) const {
  if (offset > length || size > length - offset)
    throw Error("{}: {} lies outside the file (offset {}, {} bytes; the file "
                "has {}): it is truncated or damaged",
                name.string(), what, offset, size, length);
  return bytes().subspan(offset, size);
}

void MappedFile::release(uint64_t offset, uint64_t size) const {
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  uint64_t first = offset / page * page;
  uint64_t last = std::min<uint64_t>(offset + size, length);
  if (first < last)
    madvise(const_cast<std::byte *>(data) + first, last - first, MADV_DONTNEED);
}

void MappedFile::preferHugePages() const {
  if (data)
    madvise(const_cast<std::byte *>(data), length, MADV_HUGEPAGE);
}
