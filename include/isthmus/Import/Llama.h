//===- Llama.h - Llama-architecture checkpoints as fm IR --------*- C++ -*-===//
#pragma once

#include "isthmus/Import/Checkpoint.h"

#include "mlir/IR/BuiltinOps.h"

namespace isthmus::import {

/// Builds the module of a Llama, Mistral or Qwen2 checkpoint: blocks `embed`,
/// `layer` and `head`, one `fm.param` a tensor, and the program `main`. Checks
/// that every tensor is there and has its shape. Throws rt::Error.
mlir::OwningOpRef<mlir::ModuleOp> buildLlama(mlir::MLIRContext &context,
                                             const Checkpoint &checkpoint);

/// A checkpoint with the given shape whose weights are generated from a seed:
/// for measuring shapes whose weights are not at hand.
Checkpoint generateCheckpoint(const Config &config, bool tied, uint64_t seed);

} // namespace isthmus::import
