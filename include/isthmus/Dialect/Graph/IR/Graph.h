//===- Graph.h - graphs of tensors ------------------------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/DataType.h"

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinAttributeInterfaces.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "isthmus/Dialect/Graph/IR/GraphDialect.h.inc"
#define GET_TYPEDEF_CLASSES
#include "isthmus/Dialect/Graph/IR/GraphTypes.h.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/Graph/IR/GraphOps.h.inc"

namespace isthmus::graph {

/// A node whose body has several operators that go element by element.
inline constexpr llvm::StringLiteral kFusedOp = "isthmus.Fused";

/// The type of a tensor's elements.
mlir::Type elementType(mlir::MLIRContext *context, rt::DataType type);
/// The inverse; Undefined if no tensor of a graph has such elements.
rt::DataType dataTypeOf(mlir::Type element);

/// Values as they stand in memory, as an attribute; `bytes` must have the size
/// of the type.
mlir::ElementsAttr toElements(mlir::RankedTensorType type,
                              llvm::ArrayRef<char> bytes);
/// The inverse; not for texts.
std::vector<char> toBytes(mlir::ElementsAttr values);

} // namespace isthmus::graph
