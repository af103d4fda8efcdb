//===- OnnxImport.h - from ONNX to the graph dialect ------------*- C++ -*-===//
#pragma once

#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/Import/OnnxModel.h"

#include "mlir/IR/BuiltinOps.h"

namespace isthmus::import {

/// Builds a module with one graph.program, "main". Throws rt::Error.
mlir::OwningOpRef<mlir::ModuleOp> buildGraph(mlir::MLIRContext &context,
                                             const OnnxModel &model);

} // namespace isthmus::import
