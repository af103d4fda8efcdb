//===- Tensor.cpp - values of graphs --------------------------------------===//
#include "isthmus/runtime/Tensor.h"

#include "isthmus/runtime/Error.h"

#include <cstdlib>

using namespace isthmus::rt;

int64_t Tensor::count() const {
  // No machine has more; products of sizes stay far from overflow.
  constexpr int64_t kMost = int64_t(1) << 48;
  int64_t result = 1;
  for (int64_t size : sizes) {
    if (size < 0 || (size > 0 && result > kMost / size))
      throw Error("a tensor of {} cannot be: {}", fmt::join(sizes, " x "),
                  size < 0 ? "a size is negative" : "it is too large");
    result *= size;
  }
  return result;
}

Tensor Tensor::allocate(DataType type, std::vector<int64_t> sizes) {
  Tensor tensor;
  tensor.type = type;
  tensor.sizes = std::move(sizes);
  if (type == DataType::String) {
    tensor.texts = std::make_shared<std::vector<std::string>>(tensor.count());
    return tensor;
  }
  const size_t bytes = (tensor.bytes() + 127) / 64 * 64;
  void *memory = std::aligned_alloc(64, bytes);
  if (!memory)
    throw Error("no memory for a tensor of {} bytes", bytes);
  tensor.data = {static_cast<std::byte *>(memory), std::free};
  return tensor;
}

const Tensor &Value::needTensor() const {
  if (const Tensor *found = tensor())
    return *found;
  throw Error("a tensor is needed, not {}",
              empty() ? "an empty optional" : "a sequence");
}

const std::vector<Value> &Value::needSequence() const {
  if (const Sequence *found = std::get_if<Sequence>(&content))
    return **found;
  throw Error("a sequence is needed, not {}",
              empty() ? "an empty optional" : "a tensor");
}
