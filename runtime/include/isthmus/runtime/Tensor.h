//===- Tensor.h - values of graphs ------------------------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/DataType.h"

#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace isthmus::rt {

/// A tensor in C order. Copies share its elements.
/// Memory for tensors, given again when they are gone: pages that the system
/// gives anew cost more than most nodes take. Holds at most what was in use
/// at once. Threads may share it; tensors may outlive it.
class TensorMemory {
public:
  TensorMemory();
  /// At least so many bytes, aligned to 64. Throws Error if there are none.
  std::shared_ptr<std::byte> take(size_t bytes);
  size_t heldBytes() const; ///< given or not

private:
  struct Shelf;
  std::shared_ptr<Shelf> shelf;
};

struct Tensor {
  DataType type = DataType::Undefined;
  std::vector<int64_t> sizes;
  /// Elements of all types but String; aligned to 64 bytes, and as many bytes
  /// more may be read.
  std::shared_ptr<std::byte> data;
  std::shared_ptr<std::vector<std::string>> texts;

  /// Elements; throws Error if a size is negative or the product exceeds 2^48.
  int64_t count() const;
  size_t bytes() const { return size_t(count()) * bytesOf(type); }
  template <typename T> const T *as() const {
    return reinterpret_cast<const T *>(data.get());
  }
  template <typename T> T *as() { return reinterpret_cast<T *>(data.get()); }

  /// New memory, its contents undefined (texts: empty).
  static Tensor allocate(DataType type, std::vector<int64_t> sizes);
  static Tensor allocate(DataType type, std::vector<int64_t> sizes,
                         TensorMemory &memory);
};

/// What an edge of a graph carries: nothing (an optional that is empty), a
/// tensor, or a sequence.
struct Value {
  using Sequence = std::shared_ptr<const std::vector<Value>>;
  std::variant<std::monostate, Tensor, Sequence> content;

  Value() = default;
  Value(Tensor tensor) : content(std::move(tensor)) {}
  Value(Sequence sequence) : content(std::move(sequence)) {}
  bool empty() const { return content.index() == 0; }
  const Tensor *tensor() const { return std::get_if<Tensor>(&content); }
  /// Throws Error if it is something else.
  const Tensor &needTensor() const;
  const std::vector<Value> &needSequence() const;
};

} // namespace isthmus::rt
