// libFuzzer target: no GGUF file, however hostile, may do more than throw
// Error.
#include "TemporaryInput.h"
#include "isthmus/Import/Checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  TemporaryInput file(data, size);
  try {
    isthmus::import::readGGUF(file.path());
  } catch (const isthmus::rt::Error &) {
  }
  return 0;
}
