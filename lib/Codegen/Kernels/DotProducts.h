//===- DotProducts.h - the instruction-set part of products -----*- C++ -*-===//
#pragma once

#include "MatrixUnit.h"

namespace isthmus {

/// Adds to `sums` the exact int32 dot products of a part of a block of each of
/// some panels of a packed weight of integers (16 outputs, `PackedLayout.h`)
/// with the same inputs of each row. Nibbles, with upper bits if there are any,
/// count from 0; what they stand for is the caller's business.
///
/// \param weight the layout of the weight.
/// \param inputs how many: of nibbles a whole block, of bytes a multiple of 4.
/// \param blocks for each panel, a pointer to the first of them in its block.
/// \param rows   for each row, a pointer to the first of its int8 values; all
///               as far apart as the first two.
/// \param sums   vector<16xi32>, [panel * rows + row]; those of a block start
///               from emitDotStart.
KernelBuilder::Values emitGroupDot(KernelBuilder &k, const PackedLayout &weight,
                                   int64_t inputs,
                                   const KernelBuilder::Values &blocks,
                                   const KernelBuilder::Values &rows,
                                   const KernelBuilder::Values &sums);

/// As emitGroupDot, for the whole length of panels and rows of int8. Rows have
/// -128 if weights do.
///
/// \param inputs of a panel, a multiple of 4.
KernelBuilder::Values emitLongDot(KernelBuilder &k, const PackedLayout &weight,
                                  int64_t inputs,
                                  const KernelBuilder::Values &panels,
                                  const KernelBuilder::Values &rows,
                                  const KernelBuilder::Values &sums,
                                  const EachStep &eachStep);

/// Writes the nibbles of a block of an int4 weight as bytes: as a block of
/// int8. With one scale the bytes are the values in units of it, of the block's
/// `factors`.
void emitUnpack(KernelBuilder &k, const PackedLayout &weight, mlir::Value block,
                mlir::Value factors, mlir::Value to);

/// Whether nibbles take fewer instructions than the same values as bytes, also
/// where many rows share the unpacking.
bool prefersNibbles(const TargetDescription &target);

/// Of a block of an int4 weight with one scale: its steps and offsets, read
/// from `factors`, vector<16xi32> of int16 pairs.
mlir::Value emitSteppedFactors(KernelBuilder &k, mlir::Value factors);
/// What its dot products start from, that nibbles count from -8 and sums fit
/// int16; `sums`, of the block's inputs, is vector<16xi32> of that int16 twice.
mlir::Value emitSteppedStart(KernelBuilder &k, mlir::Value sums);
/// Lane by lane: total + step * dot + offset * sum, exact in int32.
mlir::Value emitSteppedSum(KernelBuilder &k, mlir::Value dot, mlir::Value sums,
                           mlir::Value factors, mlir::Value total);

/// What the dot products of a block with so many rows start from:
/// `correction()`, i32 -128 * the sum of the row's values, or its share, for
/// instructions that take int8 weights with something added, or nothing.
mlir::Value emitDotStart(KernelBuilder &k, const PackedLayout &weight,
                         size_t rows,
                         llvm::function_ref<mlir::Value()> correction);

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

/// Lane by lane: sum + x.first * y.first + x.second * y.second, exact unless
/// the sum leaves int32.
///
/// \param x, y vector<16xi32> of int16 pairs.
/// \param sum  vector<16xi32>.
mlir::Value emitWordDot(KernelBuilder &k, mlir::Value x, mlir::Value y,
                        mlir::Value sum);

} // namespace isthmus
