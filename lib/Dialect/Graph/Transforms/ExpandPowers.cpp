//===- ExpandPowers.cpp - graph-expand-powers -----------------------------===//
#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/Dialect/Graph/Transforms/Passes.h"

#include "Nodes.h"

namespace isthmus::graph {
#define GEN_PASS_DEF_EXPANDPOWERS
#include "isthmus/Dialect/Graph/Transforms/Passes.h.inc"
} // namespace isthmus::graph

using namespace mlir;
using namespace isthmus::graph;

/// A constant that is one number.
static std::optional<double> numberOf(Value value) {
  auto constant = value.getDefiningOp<ConstantOp>();
  auto elements =
      constant ? dyn_cast_if_present<DenseElementsAttr>(constant.getValueAttr())
               : DenseElementsAttr();
  if (!elements || !elements.isSplat())
    return std::nullopt;
  if (isa<FloatType>(elements.getElementType()))
    return elements.getSplatValue<APFloat>().convertToDouble();
  if (elements.getElementType().isSignlessInteger())
    return double(elements.getSplatValue<APInt>().getSExtValue());
  return std::nullopt;
}

namespace {
struct ExpandPowers
    : public isthmus::graph::impl::ExpandPowersBase<ExpandPowers> {
  using Base::Base;

  void runOnOperation() override {
    getOperation().walk([&](NodeOp node) {
      if (node.getOp() != "Pow")
        return;
      Value x = node.getInputs()[0];
      const auto power = numberOf(node.getInputs()[1]);
      // Broadcasting by the exponent would be lost.
      if ((power != 2.0 && power != 3.0) ||
          x.getType() != node.getOutputs()[0].getType())
        return;
      NodeMaker make(node);
      Value result = make("Mul", {x, x}, x.getType());
      if (power == 3.0)
        result = make("Mul", {result, x}, x.getType());
      node.getOutputs()[0].replaceAllUsesWith(result);
      node.erase();
      ++numExpanded;
    });
  }
};
} // namespace
