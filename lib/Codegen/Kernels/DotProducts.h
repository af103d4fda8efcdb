//===- DotProducts.h - the instruction-set part of integer products -*- C++
//-*-===//
#pragma once

#include "isthmus/Codegen/KernelBuilder.h"

namespace isthmus {

/// Emits the exact int32 dot products of one 32-input block of a packed int8 or
/// int4 weight (16 outputs, `PackedLayout.h`) with one group of each row.
///
/// \param block pointer to the weight block.
/// \param rows  for each row, a pointer to its 32 int8 values.
/// \param sums  for each row, the i32 sum of those values.
/// \returns for each row, vector<16xi32>. int4 counts nibbles as 0..15; what
/// they
///          stand for is the caller's business.
KernelBuilder::Values emitGroupDot(KernelBuilder &k, mlir::Value block,
                                   bool int4, const KernelBuilder::Values &rows,
                                   const KernelBuilder::Values &sums);

/// Lane by lane: sum + x.second * y.second, and to that x.first * y.first, each
/// fused (the order of x86's VDPBF16PS, which also takes denormals for zero).
///
/// \param x, y vector<16xi32> of bf16 pairs.
/// \param sum  vector<16xf32>.
mlir::Value emitPairDot(KernelBuilder &k, mlir::Value x, mlir::Value y,
                        mlir::Value sum);

/// The same with two fused multiply-adds, and the halves of x as
/// vector<16xf32>.
mlir::Value emitPairDot(KernelBuilder &k, mlir::Value first, mlir::Value second,
                        mlir::Value y, mlir::Value sum);

} // namespace isthmus
