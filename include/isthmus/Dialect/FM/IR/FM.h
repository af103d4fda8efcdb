//===- FM.h - the foundation-model dialect ----------------------*- C++ -*-===//
#pragma once

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "isthmus/Dialect/FM/IR/FMDialect.h.inc"
#include "isthmus/Dialect/FM/IR/FMEnums.h.inc"
#define GET_TYPEDEF_CLASSES
#include "isthmus/Dialect/FM/IR/FMTypes.h.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/FM/IR/FMOps.h.inc"

namespace isthmus::fm {

/// Positions over which attention keeps one softmax state before merging; part
/// of the numerics contract (docs/numerics.md).
inline constexpr int64_t kAttentionPartition = 256;

/// Returns the number of features of rows of activations, f32 or quantised.
int64_t getFeatures(mlir::Type activation);

} // namespace isthmus::fm
