//===- Passes.h - passes for placement and splitting -------------*- C++
//-*-===//
#pragma once

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace isthmus::dist {
#define GEN_PASS_DECL
#include "isthmus/Dialect/Dist/Transforms/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "isthmus/Dialect/Dist/Transforms/Passes.h.inc"
} // namespace isthmus::dist
