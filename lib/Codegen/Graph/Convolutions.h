//===- Convolutions.h - ways to compute a Conv in f32 -----------*- C++ -*-===//
//
// Each has a shape function, which sets tiles and scratch memory (sizes are set
// already), and a kernel.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/Graph/Operators.h"

namespace isthmus {

/// The sizes of the window by those of the weight.
NodeBuilder::Scalars kernelSizes(NodeBuilder &n, size_t weight);

/// Writes elements from + x * stride of input 0, f32, to elements to + x of the
/// scratch memory, for x in [begin, end).
void copyToScratch(NodeBuilder &n, Scalar from, Scalar stride, Scalar to,
                   Scalar begin, Scalar end);

/// As products of the weights with windows that are written side by side.
void shapeBlockedConv(NodeBuilder &n);
void computeBlockedConv(NodeBuilder &n);

/// Where each group has one channel: as sums of shifted lines.
bool isDepthwise(NodeBuilder &n);
void shapeDepthwiseConv(NodeBuilder &n);
void computeDepthwiseConv(NodeBuilder &n);

} // namespace isthmus
