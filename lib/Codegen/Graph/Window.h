//===- Window.h - windows that slide over pictures --------------*- C++ -*-===//
#pragma once

#include "isthmus/Codegen/Graph/Operators.h"

namespace isthmus {

/// Windows of convolutions and pools over the spatial dimensions of input 0,
/// which are those from 2 on.
struct Window {
  size_t dimensions;
  NodeBuilder::Scalars input, kernel, stride, dilation, before, output;

  /// \param kernel sizes of the window.
  Window(NodeBuilder &n, NodeBuilder::Scalars kernel);

  /// Where element `offset` of the window at `place` lies in the input.
  Scalar position(size_t d, Scalar place, Scalar offset) const {
    return place * stride[d] - before[d] + offset * dilation[d];
  }
  /// Calls `body` with the coordinates, in the input's spatial dimensions, of
  /// each element of the window at `at` that is not padding, and its place in
  /// the window.
  NodeBuilder::Scalars forEach(
      NodeBuilder &n, llvm::ArrayRef<Scalar> at, NodeBuilder::Scalars initial,
      llvm::function_ref<NodeBuilder::Scalars(llvm::ArrayRef<Scalar> position,
                                              llvm::ArrayRef<Scalar> offset,
                                              llvm::ArrayRef<Scalar> state)>
          body) const;
};

/// An attribute of integers, one for each of `count` dimensions.
NodeBuilder::Scalars perSpatial(NodeBuilder &n, llvm::StringRef name,
                                size_t count, int64_t otherwise);

} // namespace isthmus
