//===- Passes.h - passes over the graph dialect -----------------*- C++ -*-===//
#pragma once

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace isthmus::graph {
#define GEN_PASS_DECL
#include "isthmus/Dialect/Graph/Transforms/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "isthmus/Dialect/Graph/Transforms/Passes.h.inc"
} // namespace isthmus::graph
