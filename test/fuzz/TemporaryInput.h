// A fuzzer's input as a file, since readers map files.
#pragma once

#include "isthmus/runtime/Error.h"

#include <string>
#include <sys/mman.h>
#include <unistd.h>

class TemporaryInput {
public:
  TemporaryInput(const uint8_t *data, size_t size)
      : fd(memfd_create("fuzz", MFD_CLOEXEC)) {
    if (write(fd, data, size) != ssize_t(size))
      throw std::runtime_error("cannot write");
  }
  ~TemporaryInput() { close(fd); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd); }

private:
  int fd;
};
