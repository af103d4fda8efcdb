// libFuzzer target: a tokenizer.json and a text to encode, separated by a zero
// byte.
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view input(reinterpret_cast<const char *>(data), size);
  size_t zero = input.find('\0');
  if (zero == std::string_view::npos)
    return 0;
  try {
    isthmus::rt::Tokenizer tokenizer(input.substr(0, zero));
    tokenizer.decode(tokenizer.encode(input.substr(zero + 1)));
  } catch (const isthmus::rt::Error &) {
  }
  return 0;
}
