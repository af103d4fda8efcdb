//===- ObjectEmitter.h - from a module of kernels to an ELF library -*- C++
//-*-===//
#pragma once

#include "isthmus/Target/TargetDescription.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"

#include <string>

namespace isthmus {

/// Adds the passes that take a module of kernels to the LLVM dialect.
void buildKernelLowering(mlir::OpPassManager &passes);

/// Lowers `kernels` (a clone is made) and links it, in this process, to an ELF
/// shared object for `target`. The library has no dependencies and exports one
/// symbol a kernel. Reports failures on `kernels`.
///
/// \param library  receives the bytes of the shared object.
/// \param assembly if not null, receives the assembly text instead.
/// \param vectorize lets LLVM vectorise loops, for kernels that are not written
/// so.
mlir::LogicalResult emitKernelLibrary(mlir::ModuleOp kernels,
                                      const TargetDescription &target,
                                      std::string *library,
                                      std::string *assembly = nullptr,
                                      bool vectorize = false);

} // namespace isthmus
