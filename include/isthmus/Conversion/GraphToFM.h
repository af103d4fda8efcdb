//===- GraphToFM.h - raises graphs of decoders to fm ------------*- C++ -*-===//
#pragma once

#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/runtime/Tensor.h"

#include "mlir/IR/BuiltinOps.h"

#include <functional>
#include <span>
#include <string>

namespace isthmus {

/// A graph that can be run.
using GraphFunction =
    std::function<std::vector<rt::Value>(std::span<const rt::Value>)>;
/// Compiles the program of a module for this machine. Throws rt::Error.
using GraphCompiler = std::function<GraphFunction(mlir::ModuleOp)>;

struct RaiseOptions {
  int64_t contextLength = 0; ///< positions of the longest sequence; 0: unknown
};

struct RaisedModel {
  /// As architecture descriptions build it; null if the graph is none.
  mlir::OwningOpRef<mlir::ModuleOp> module;
  /// Why it is none: the node that stands in the way.
  std::string reason;
};

/// Writes a graph as a model of fm if it is a decoder: token ids go in, logits
/// come out, and keys and values of each layer go in and out as tensors or not
/// at all. Attention, norms, rotary embedding, activations and gates may be
/// operators or spelled out; weights become weight programs, the cache the
/// runtime's. Nothing is half raised.
///
/// What depends on lengths and positions alone is run for a few of them
/// (`compile`): masks must let each token see itself and those before it, or a
/// window of them, angles must be those of rotary embedding, positions must
/// count on from the cache.
RaisedModel raiseToFM(graph::ProgramOp program, const GraphCompiler &compile,
                      const RaiseOptions &options);

} // namespace isthmus
