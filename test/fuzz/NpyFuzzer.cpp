// libFuzzer target: an .npy file.
#include "Npy.h"
#include "TemporaryInput.h"
#include "isthmus/runtime/Error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  TemporaryInput file(data, size);
  try {
    isthmus::cli::readNpy(file.path());
  } catch (const isthmus::rt::Error &) {
  }
  return 0;
}
