//===- HoistConstants.cpp - graph-hoist-constants -------------------------===//
#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/Dialect/Graph/Transforms/Passes.h"

#include "Nodes.h"

#include "llvm/ADT/StringSet.h"

namespace isthmus::graph {
#define GEN_PASS_DEF_HOISTCONSTANTS
#include "isthmus/Dialect/Graph/Transforms/Passes.h.inc"
} // namespace isthmus::graph

using namespace mlir;
using namespace isthmus;
using namespace isthmus::graph;

namespace {
/// Whether an operation may run although its body would not: what it does with
/// any constants is cheap, and no sizes that fit each other make it fail.
bool mayRun(Operation *op) {
  if (isa<ConstantOp, NoneOp>(op))
    return true;
  static const llvm::StringSet<> moves = {"Cast", "Concat", "Slice",
                                          "Transpose", "Unsqueeze"};
  auto node = dyn_cast<NodeOp>(op);
  return node && moves.contains(node.getOp());
}

struct HoistConstants
    : public isthmus::graph::impl::HoistConstantsBase<HoistConstants> {
  using Base::Base;

  void runOnOperation() override {
    for (ProgramOp program : getOperation().getOps<ProgramOp>()) {
      Block &outermost = program.getBody().front();
      SmallVector<Operation *> inside;
      program.walk<WalkOrder::PreOrder>([&](Operation *op) {
        if (op->getBlock() != &outermost && op != program)
          inside.push_back(op);
      });
      for (Operation *op : inside) {
        // What it takes has been moved before.
        if (!mayRun(op) || llvm::any_of(op->getOperands(), [&](Value operand) {
              return operand.getParentBlock() != &outermost ||
                     !isConstant(operand);
            }))
          continue;
        op->moveBefore(outermost.findAncestorOpInBlock(*op));
        ++numHoisted;
      }
    }
  }
};
} // namespace
