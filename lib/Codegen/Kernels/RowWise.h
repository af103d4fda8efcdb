//===- RowWise.h - pieces that kernels of rows share ------------*- C++ -*-===//
#pragma once

#include "isthmus/Codegen/Kernels.h"

namespace isthmus {

/// How values become integers of at most `most`, and back. Values so small that
/// most / largest would overflow become zeros.
struct Scaling {
  mlir::Value scale;  ///< f32: largest / most
  mlir::Value factor; ///< f32: its inverse
};
/// \param largest the largest magnitude among the values, f32.
Scaling scalingFor(KernelBuilder &k, mlir::Value largest, double most);

/// The largest magnitude in vectors of f32.
mlir::Value largestMagnitude(KernelBuilder &k,
                             const KernelBuilder::Values &values);

/// Quantises the values of group `group`, 16 a vector, into a qrows row.
void storeQuantizedGroup(KernelBuilder &k, mlir::Value row, mlir::Value group,
                         const QRowsLayout &layout,
                         const KernelBuilder::Values &values);

/// Rounds 16 values to bf16, and writes them to where they belong in a row:
/// `offset` is theirs in a row of f32.
void storeRounded(KernelBuilder &k, RowFormat format, mlir::Value values,
                  mlir::Value row, mlir::Value offset);

/// Writes 16 values' parts of bf16 to where the first of them belongs in a row
/// of RowFormat::BF16x3.
void storeSplit(KernelBuilder &k, mlir::Value values, mlir::Value to);

} // namespace isthmus
