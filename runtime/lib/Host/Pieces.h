//===- Pieces.h - cutting and joining tensors on the host -------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Tensor.h"

#include <cstdint>
#include <span>

namespace isthmus::rt {

/// Copies elements, of any type, between tensors of one type.
void copyElements(const Tensor &from, int64_t fromIndex, Tensor &to,
                  int64_t toIndex, int64_t count);

/// -rank..rank-1 to 0..rank-1; throws Error outside of it.
size_t normalAxis(int64_t axis, size_t rank);

/// [begin, end) of `axis`.
Tensor slice(const Tensor &tensor, size_t axis, int64_t begin, int64_t end);
/// The tensors one after another along `axis`. Throws Error unless there is one
/// and all other sizes and types agree.
Tensor concatenate(std::span<const Tensor> tensors, size_t axis);
/// The same elements with a size 1 put in before `axis`, or taken away there.
Tensor withAxis(Tensor tensor, size_t axis);
Tensor withoutAxis(Tensor tensor, size_t axis);

/// The element of a tensor of integers (32 or 64 bits) or bool.
int64_t integerAt(const Tensor &tensor, int64_t index);
/// A tensor without dimensions.
Tensor scalar(int64_t value);
Tensor scalar(bool value);

} // namespace isthmus::rt
