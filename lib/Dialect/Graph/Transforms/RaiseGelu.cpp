//===- RaiseGelu.cpp - graph-raise-gelu -----------------------------------===//
#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/Dialect/Graph/Transforms/Passes.h"

#include "Nodes.h"

#include <cmath>

namespace isthmus::graph {
#define GEN_PASS_DEF_RAISEGELU
#include "isthmus/Dialect/Graph/Transforms/Passes.h.inc"
} // namespace isthmus::graph

using namespace mlir;
using namespace isthmus;
using namespace isthmus::graph;

namespace {
NodeOp nodeOf(Value value, StringRef op) {
  auto node = value.getDefiningOp<NodeOp>();
  return node && node.getOp() == op ? node : NodeOp();
}

/// The number that a constant of one element is.
std::optional<double> numberOf(Value value) {
  auto constant = value.getDefiningOp<ConstantOp>();
  if (!constant || !isSingle(value))
    return std::nullopt;
  auto elements = dyn_cast_if_present<DenseFPElementsAttr>(
      constant.getValue().value_or(nullptr));
  if (!elements)
    return std::nullopt;
  return (*elements.begin()).convertToDouble();
}

bool isNumber(Value value, double wanted) {
  auto number = numberOf(value);
  return number && std::abs(*number - wanted) <= 1e-5 * std::abs(wanted);
}

/// The x of erf(x / sqrt 2) + 1.
Value operandOfCurve(Value value) {
  NodeOp add = nodeOf(value, "Add");
  for (unsigned i : {0u, 1u}) {
    if (!add || !isNumber(add.getInputs()[1 - i], 1))
      continue;
    NodeOp erf = nodeOf(add.getInputs()[i], "Erf");
    if (!erf)
      continue;
    if (NodeOp scaled = nodeOf(erf.getInputs()[0], "Div");
        scaled && isNumber(scaled.getInputs()[1], M_SQRT2))
      return scaled.getInputs()[0];
    if (NodeOp scaled = nodeOf(erf.getInputs()[0], "Mul"))
      for (unsigned s : {0u, 1u})
        if (isNumber(scaled.getInputs()[1 - s], M_SQRT1_2))
          return scaled.getInputs()[s];
  }
  return {};
}

struct RaiseGelu : public isthmus::graph::impl::RaiseGeluBase<RaiseGelu> {
  using Base::Base;

  void runOnOperation() override {
    for (ProgramOp program : getOperation().getOps<ProgramOp>()) {
      // The last factor stands last.
      auto nodes = llvm::to_vector(program.getOps<NodeOp>());
      for (NodeOp node : llvm::reverse(nodes))
        if (node.getOp() == "Mul")
          raise(node);
      eraseUnused(program);
    }
  }

private:
  static void collect(NodeOp product, SmallVectorImpl<Value> &factors) {
    for (Value factor : product.getInputs()) {
      NodeOp inner = nodeOf(factor, "Mul");
      if (inner && factor.hasOneUse() && factors.size() < 4)
        collect(inner, factors);
      else
        factors.push_back(factor);
    }
  }

  void raise(NodeOp node) {
    auto type = tensorType(node.getOutputs()[0]);
    if (!type || !type.getElementType().isF32())
      return;
    SmallVector<Value> factors;
    collect(node, factors);
    if (factors.size() != 3)
      return;
    Value x;
    for (Value factor : factors)
      if (Value found = operandOfCurve(factor))
        x = found;
    if (!x || x.getType() != type || !llvm::is_contained(factors, x) ||
        llvm::none_of(factors, [](Value f) { return isNumber(f, 0.5); }))
      return;
    NodeMaker make(node);
    node.getOutputs()[0].replaceAllUsesWith(make("Gelu", {x}, type));
    ++numRaised;
  }
};
} // namespace
