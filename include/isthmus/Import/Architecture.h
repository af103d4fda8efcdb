//===- Architecture.h - the model families that can be read -----*- C++ -*-===//
//
// An architecture is one file in lib/Import/Architectures and its entry in the
// table of Architecture.cpp (docs/add-an-architecture.md).
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Import/ModelBuilder.h"

#include <span>
#include <string_view>

namespace isthmus::import {

struct Architecture {
  /// `model_type` of config.json, and `general.architecture` of GGUF.
  std::vector<std::string_view> names;
  /// GGUF's name of a tensor and the checkpoint's, without ".weight" and
  /// ".bias"; '#' stands for the layer.
  using TensorName = std::pair<std::string_view, std::string_view>;
  std::vector<TensorName> ggufNames;
  /// Describes the model.
  mlir::OwningOpRef<mlir::ModuleOp> (*build)(ModelBuilder &);
};

std::span<const Architecture> architectures();

/// Builds the module of a checkpoint: blocks, one `fm.param` a weight, and its
/// programs. Checks that every tensor is there, has its shape, and is
/// used. Throws rt::Error.
mlir::OwningOpRef<mlir::ModuleOp> buildModel(mlir::MLIRContext &context,
                                             const Checkpoint &checkpoint);

// lib/Import/Architectures, a file each.
Architecture llama();
Architecture gpt2();
Architecture gemma3();
Architecture bert();
Architecture vit();
Architecture clip();

} // namespace isthmus::import
