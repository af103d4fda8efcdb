//===- Passes.h - passes over the fm dialect --------------------*- C++ -*-===//
#pragma once

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace isthmus::fm {
#define GEN_PASS_DECL
#include "isthmus/Dialect/FM/Transforms/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "isthmus/Dialect/FM/Transforms/Passes.h.inc"
} // namespace isthmus::fm
