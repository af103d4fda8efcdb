// libFuzzer target: no safetensors file may do more than throw Error.
#include "TemporaryInput.h"
#include "isthmus/Import/Checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  TemporaryInput file(data, size);
  std::map<std::string, isthmus::import::Tensor> tensors;
  try {
    isthmus::import::readSafetensors(file.path(), tensors);
  } catch (const isthmus::rt::Error &) {
  }
  return 0;
}
