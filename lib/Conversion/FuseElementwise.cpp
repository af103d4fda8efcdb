//===- FuseElementwise.cpp - graph-fuse-elementwise -----------------------===//
#include "isthmus/Conversion/GraphToKernels.h"
#include "isthmus/Conversion/Passes.h"

#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/SetVector.h"

namespace isthmus {
#define GEN_PASS_DEF_FUSEELEMENTWISE
#include "isthmus/Conversion/Passes.h.inc"
} // namespace isthmus

using namespace mlir;
using namespace isthmus;

namespace {
/// More inputs than this leave a loop without registers for their addresses.
constexpr size_t kMostInputs = 12, kMostSteps = 32;

/// Whether both have the same number of elements, as far as types say: what
/// would be broadcast afterwards is not worth computing again and again.
bool sameSizes(Value a, Value b) {
  return cast<RankedTensorType>(a.getType()).getShape() ==
         cast<RankedTensorType>(b.getType()).getShape();
}

struct FuseElementwise
    : public isthmus::impl::FuseElementwiseBase<FuseElementwise> {
  using Base::Base;

  void runOnOperation() override {
    std::vector<Block *> blocks;
    getOperation().walk([&](graph::ProgramOp program) {
      program->walk([&](Block *block) { blocks.push_back(block); });
    });
    for (Block *block : blocks)
      fuseIn(*block);
  }

private:
  llvm::DenseSet<Value> constants; ///< of the block, and what follows of them

  using Group = llvm::SmallSetVector<Operation *, 8>;

  bool mayFuse(Operation *op) {
    auto node = dyn_cast_if_present<graph::NodeOp>(op);
    return node && node.getNumResults() == 1 &&
           !constants.contains(node.getResult(0)) && isElementwise(node);
  }

  void fuseIn(Block &block) {
    constants.clear();
    for (Operation &op : block)
      if (isa<graph::ConstantOp, graph::NoneOp>(op) ||
          (isa<graph::NodeOp>(op) &&
           llvm::all_of(op.getOperands(),
                        [&](Value v) { return constants.contains(v); })))
        constants.insert_range(op.getResults());
    std::vector<Operation *> nodes;
    for (Operation &op : llvm::reverse(block))
      nodes.push_back(&op);
    llvm::DenseSet<Operation *> gone;
    for (Operation *op : nodes) {
      if (gone.contains(op) || !mayFuse(op))
        continue;
      Group group = groupOf(cast<graph::NodeOp>(op));
      if (group.size() == 1)
        continue;
      gone.insert_range(group);
      build(group);
      ++numFused;
    }
  }

  /// The nodes before `root` that nobody else needs.
  Group groupOf(graph::NodeOp root) {
    Group group;
    group.insert(root);
    for (bool grows = true; grows;) {
      grows = false;
      for (size_t i = 0; i < group.size(); ++i)
        for (Value operand : group[i]->getOperands()) {
          Operation *op = operand.getDefiningOp();
          if (group.contains(op) || !mayFuse(op) ||
              op->getBlock() != root->getBlock() ||
              !sameSizes(operand, root.getResult(0)) ||
              !llvm::all_of(op->getUsers(), [&](Operation *user) {
                return group.contains(user);
              }))
            continue;
          Group larger = group;
          larger.insert(op);
          if (larger.size() > kMostSteps ||
              inputsOf(larger).size() > kMostInputs)
            continue;
          group = larger;
          grows = true;
        }
    }
    return group;
  }

  static llvm::SetVector<Value> inputsOf(const Group &group) {
    llvm::SetVector<Value> inputs;
    for (Operation *op : group)
      for (Value operand : op->getOperands())
        if (!isa<NoneType>(operand.getType()) &&
            !group.contains(operand.getDefiningOp()))
          inputs.insert(operand);
    return inputs;
  }

  void build(const Group &group) {
    auto root = cast<graph::NodeOp>(group[0]);
    const llvm::SetVector<Value> inputs = inputsOf(group);
    OpBuilder b(root);
    auto fused = graph::NodeOp::create(
        b, root.getLoc(), root.getResultTypes(),
        b.getStringAttr(graph::kFusedOp), inputs.getArrayRef(),
        b.getDictionaryAttr({}), root.getNameAttr(), /*bodiesCount=*/1);
    Block &body = fused.getBodies()[0].emplaceBlock();
    IRMapping mapping;
    for (Value input : inputs)
      mapping.map(input, body.addArgument(input.getType(), input.getLoc()));
    b.setInsertionPointToStart(&body);
    llvm::SmallVector<Operation *> ordered(group.begin(), group.end());
    llvm::sort(ordered, [](Operation *x, Operation *y) {
      return x->isBeforeInBlock(y);
    });
    for (Operation *op : ordered) {
      for (Value operand : op->getOperands())
        if (isa<NoneType>(operand.getType()) && !mapping.contains(operand))
          mapping.map(operand, graph::NoneOp::create(b, operand.getLoc(),
                                                     operand.getType()));
      b.clone(*op, mapping);
    }
    graph::ReturnOp::create(b, root.getLoc(),
                            mapping.lookup(root.getResult(0)));
    root.getResult(0).replaceAllUsesWith(fused.getResult(0));
    for (Operation *op : llvm::reverse(ordered))
      op->erase();
  }
};
} // namespace
