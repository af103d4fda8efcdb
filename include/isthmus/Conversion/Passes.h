//===- Passes.h - conversions between dialects ------------------*- C++ -*-===//
#pragma once

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace isthmus {
#define GEN_PASS_DECL
#include "isthmus/Conversion/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "isthmus/Conversion/Passes.h.inc"
} // namespace isthmus
