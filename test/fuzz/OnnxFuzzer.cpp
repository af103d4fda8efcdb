// libFuzzer target: an ONNX model, read as far as its types.
#include "TemporaryInput.h"
#include "isthmus/Import/OnnxModel.h"
#include "isthmus/runtime/Error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  TemporaryInput file(data, size);
  try {
    isthmus::import::readOnnx(file.path());
  } catch (const isthmus::rt::Error &) {
  }
  return 0;
}
