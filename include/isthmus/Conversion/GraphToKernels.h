//===- GraphToKernels.h - kernels and message of a graph --------*- C++ -*-===//
#pragma once

#include "bundle.pb.h"
#include "isthmus/Codegen/Graph/Operators.h"
#include "isthmus/Dialect/Graph/IR/Graph.h"

#include "mlir/IR/BuiltinOps.h"

#include <functional>

namespace isthmus {

/// What of a node's operands and attributes decides on its code.
NodeSpec specOf(graph::NodeOp node);

/// Whether code can be made for the node as a part of a graph::kFusedOp.
bool isElementwise(graph::NodeOp node);

/// A node that neither code nor the host can run, and why.
struct UnsupportedNode {
  std::string name, op, reason;
};

/// All such nodes of a program, bodies included.
std::vector<UnsupportedNode> findUnsupported(graph::ProgramOp program);

/// Whether the result of a node is written into the bundle as a constant
/// (GraphPacking.h).
bool isPacking(graph::NodeOp node);

/// Adds the kernels of a program's nodes to `kernels`, equal ones once, and
/// describes the program. \param addWeight gives the index in the manifest of a
/// graph::ConstantOp or of a node that packs one.
void convertGraph(graph::ProgramOp program, mlir::ModuleOp kernels,
                  const TargetDescription &target,
                  const std::function<uint32_t(mlir::Operation *)> &addWeight,
                  bundle::Graph &out);

} // namespace isthmus
