//===- RowWise.h - pieces that kernels of rows share ------------*- C++ -*-===//
#pragma once

#include "isthmus/Codegen/Kernels.h"

namespace isthmus {

/// Quantises the values of group `group`, 16 a vector, into a qrows row.
void storeQuantizedGroup(KernelBuilder &k, mlir::Value row, mlir::Value group,
                         const QRowsLayout &layout,
                         const KernelBuilder::Values &values);

/// gate * sigmoid(gate) * up, lane by lane.
mlir::Value emitSiluMul(KernelBuilder &k, mlir::Value gate, mlir::Value up);

} // namespace isthmus
