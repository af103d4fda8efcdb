//===- Pieces.cpp - cutting and joining tensors on the host ---------------===//
#include "Pieces.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <cstring>

using namespace isthmus::rt;

void isthmus::rt::copyElements(const Tensor &from, int64_t fromIndex,
                               Tensor &to, int64_t toIndex, int64_t count) {
  if (from.type == DataType::String) {
    std::copy_n(from.texts->begin() + fromIndex, count,
                to.texts->begin() + toIndex);
    return;
  }
  const auto size = int64_t(bytesOf(from.type));
  std::memcpy(to.data.get() + toIndex * size,
              from.data.get() + fromIndex * size, size_t(count * size));
}

size_t isthmus::rt::normalAxis(int64_t axis, size_t rank) {
  const int64_t normal = axis < 0 ? axis + int64_t(rank) : axis;
  if (normal < 0 || normal >= int64_t(rank))
    throw Error("axis {} of a tensor with {} dimensions", axis, rank);
  return size_t(normal);
}

/// Elements of one step along `axis`.
static int64_t innerCount(const Tensor &tensor, size_t axis) {
  int64_t inner = 1;
  for (size_t d = axis + 1; d < tensor.sizes.size(); ++d)
    inner *= tensor.sizes[d];
  return inner;
}

static int64_t outerCount(const Tensor &tensor, size_t axis) {
  int64_t outer = 1;
  for (size_t d = 0; d < axis; ++d)
    outer *= tensor.sizes[d];
  return outer;
}

Tensor isthmus::rt::slice(const Tensor &tensor, size_t axis, int64_t begin,
                          int64_t end) {
  const int64_t size = tensor.sizes.at(axis);
  if (begin < 0 || begin > end || end > size)
    throw Error("[{}, {}) of a dimension of {}", begin, end, size);
  std::vector<int64_t> sizes = tensor.sizes;
  sizes[axis] = end - begin;
  Tensor result = Tensor::allocate(tensor.type, std::move(sizes));
  const int64_t inner = innerCount(tensor, axis);
  for (int64_t o = 0; o < outerCount(tensor, axis); ++o)
    copyElements(tensor, (o * size + begin) * inner, result,
                 o * (end - begin) * inner, (end - begin) * inner);
  return result;
}

Tensor isthmus::rt::concatenate(std::span<const Tensor> tensors, size_t axis) {
  if (tensors.empty())
    throw Error("nothing to concatenate");
  std::vector<int64_t> sizes = tensors[0].sizes;
  sizes.at(axis) = 0;
  for (const Tensor &tensor : tensors) {
    bool same =
        tensor.type == tensors[0].type && tensor.sizes.size() == sizes.size();
    for (size_t d = 0; same && d < sizes.size(); ++d)
      same = d == axis || tensor.sizes[d] == sizes[d];
    if (!same)
      throw Error("tensors of different types or sizes cannot be concatenated");
    sizes[axis] += tensor.sizes[axis];
  }
  Tensor result = Tensor::allocate(tensors[0].type, sizes);
  int64_t before = 0;
  for (const Tensor &tensor : tensors) {
    const int64_t run = tensor.sizes[axis] * innerCount(tensor, axis);
    const int64_t stride = sizes[axis] * innerCount(tensor, axis);
    for (int64_t o = 0; o < outerCount(tensor, axis); ++o)
      copyElements(tensor, o * run, result, o * stride + before, run);
    before += run;
  }
  return result;
}

Tensor isthmus::rt::withAxis(Tensor tensor, size_t axis) {
  tensor.sizes.insert(tensor.sizes.begin() + ptrdiff_t(axis), 1);
  return tensor;
}

Tensor isthmus::rt::withoutAxis(Tensor tensor, size_t axis) {
  tensor.sizes.erase(tensor.sizes.begin() + ptrdiff_t(axis));
  return tensor;
}

int64_t isthmus::rt::integerAt(const Tensor &tensor, int64_t index) {
  if (index < 0 || index >= tensor.count())
    throw Error("element {} of {}", index, tensor.count());
  switch (tensor.type) {
  case DataType::I64:
    return tensor.as<int64_t>()[index];
  case DataType::I32:
    return tensor.as<int32_t>()[index];
  case DataType::Bool:
    return tensor.as<uint8_t>()[index] != 0;
  default:
    throw Error("integers are needed, not {}", nameOf(tensor.type));
  }
}

Tensor isthmus::rt::scalar(int64_t value) {
  Tensor tensor = Tensor::allocate(DataType::I64, {});
  *tensor.as<int64_t>() = value;
  return tensor;
}

Tensor isthmus::rt::scalar(bool value) {
  Tensor tensor = Tensor::allocate(DataType::Bool, {});
  *tensor.as<uint8_t>() = value;
  return tensor;
}
