//===- Functions.h - activation functions -----------------------*- C++ -*-===//
#pragma once

#include "isthmus/Codegen/Kernels.h"

namespace isthmus {

/// function(x), lane by lane.
mlir::Value emitFunction(KernelBuilder &k, Function function, mlir::Value x);

} // namespace isthmus
