//===- FM.h - the foundation-model dialect ----------------------*- C++ -*-===//
#pragma once

#include "isthmus/Weights/PackedLayout.h"

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
namespace isthmus::fm {
/// Integers, whose weights are quantised in groups.
constexpr bool isQuantized(WeightFormat format) {
  return format >= WeightFormat::Int8;
}
/// How a weight is stored. (The two enumerations list formats in the same
/// order; int7 is stored as int8.)
constexpr PackedFormat storedAs(WeightFormat format) {
  return format == WeightFormat::Int7 ? PackedFormat::Int8
                                      : static_cast<PackedFormat>(format);
}
} // namespace isthmus::fm

#define GET_TYPEDEF_CLASSES
#include "isthmus/Dialect/FM/IR/FMTypes.h.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/FM/IR/FMOps.h.inc"

namespace isthmus::fm {

/// True if `use` is a weight matrix of a product (fm.linear, fm.gated_linear).
bool isProductWeight(mlir::OpOperand &use);

/// The dtype in which a file stores rows of a weight program, that are rows of
/// a source as it has them; empty if something computes them.
llvm::StringRef storedDType(mlir::Value rows);

/// True if the operator goes from the step's rows to those that are wanted.
bool choosesRows(mlir::Operation &op);

/// True if a cache can keep keys and values in `format`.
bool isKVFormat(WeightFormat format);

/// True for rows of int8 that have one scale, not one for each of several
/// groups.
bool hasOneScale(mlir::Type activation);

/// Of how many parts of bf16 a feature of rows for a matrix unit is; 0: other
/// rows.
int64_t getParts(mlir::Type activation);

/// Returns the number of features of rows of activations, floats or quantised.
int64_t getFeatures(mlir::Type activation);

} // namespace isthmus::fm
