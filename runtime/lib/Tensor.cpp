//===- Tensor.cpp - values of graphs --------------------------------------===//
#include "isthmus/runtime/Tensor.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

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

struct TensorMemory::Shelf {
  std::mutex mutex;
  std::multimap<size_t, std::byte *> blocks; ///< by their bytes
  size_t idle = 0, inUse = 0, most = 0;      ///< bytes; the most in use at once

  ~Shelf() {
    for (auto &[bytes, block] : blocks)
      std::free(block);
  }

  std::pair<size_t, std::byte *> take(size_t bytes) {
    const std::lock_guard lock(mutex);
    // Not a block for what is much smaller.
    auto found = blocks.lower_bound(bytes);
    if (found != blocks.end() && found->first <= 2 * bytes) {
      const auto block = *found;
      blocks.erase(found);
      idle -= block.first;
      inUse += block.first;
      return block;
    }
    most = std::max(most, inUse + bytes);
    while (!blocks.empty() && inUse + idle + bytes > most) {
      std::free(blocks.begin()->second);
      idle -= blocks.begin()->first;
      blocks.erase(blocks.begin());
    }
    auto *block = static_cast<std::byte *>(std::aligned_alloc(64, bytes));
    if (!block)
      throw Error("no memory for a tensor of {} bytes", bytes);
    inUse += bytes;
    return {bytes, block};
  }

  void give(size_t bytes, std::byte *block) {
    const std::lock_guard lock(mutex);
    inUse -= bytes;
    idle += bytes;
    blocks.emplace(bytes, block);
  }
};

TensorMemory::TensorMemory() : shelf(std::make_shared<Shelf>()) {}

std::shared_ptr<std::byte> TensorMemory::take(size_t bytes) {
  const auto [own, block] = shelf->take((bytes + 63) / 64 * 64);
  return {block, [shelf = shelf, own = own](std::byte *memory) {
            shelf->give(own, memory);
          }};
}

size_t TensorMemory::heldBytes() const {
  const std::lock_guard lock(shelf->mutex);
  return shelf->idle + shelf->inUse;
}

Tensor Tensor::allocate(DataType type, std::vector<int64_t> sizes,
                        TensorMemory &memory) {
  Tensor tensor;
  tensor.type = type;
  tensor.sizes = std::move(sizes);
  if (type == DataType::String)
    tensor.texts = std::make_shared<std::vector<std::string>>(tensor.count());
  else
    tensor.data = memory.take(tensor.bytes() + 64);
  return tensor;
}

Tensor Tensor::allocate(DataType type, std::vector<int64_t> sizes) {
  TensorMemory own;
  return allocate(type, std::move(sizes), own);
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
