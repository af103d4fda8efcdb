//===- SplitRows.cpp - fm-split-rows --------------------------------------===//
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/FM/Transforms/Passes.h"
#include "isthmus/Weights/PackedLayout.h"

namespace isthmus::fm {
#define GEN_PASS_DEF_SPLITROWS
#include "isthmus/Dialect/FM/Transforms/Passes.h.inc"
} // namespace isthmus::fm

using namespace mlir;
using namespace isthmus;
using namespace isthmus::fm;

namespace {
struct SplitRows : public isthmus::fm::impl::SplitRowsBase<SplitRows> {
  using Base::Base;

  void runOnOperation() override {
    llvm::DenseSet<StringRef> others;
    for (auto program : getOperation().getOps<ProgramOp>())
      if (!isChosen(program))
        for (auto call : program.getOps<CallOp>())
          others.insert(call.getCallee());
    for (auto block : getOperation().getOps<BlockOp>())
      if (!others.contains(block.getSymName()))
        split(block);
  }

private:
  /// An image has as many rows as the longest sequence of its program.
  bool isChosen(ProgramOp program) {
    auto rows = program->getAttrOfType<IntegerAttr>("fm.context_length");
    return leastImageRows == 0 || (program->hasAttr("fm.image") && rows &&
                                   rows.getInt() >= leastImageRows);
  }

  void split(BlockOp block) {
    // Rows that several products take are split once.
    llvm::DenseMap<Value, Value> known;
    for (Operation &op : block.getBody().front()) {
      if (choosesRows(op))
        return; // few are left
      WeightType weight;
      if (auto linear = dyn_cast<LinearOp>(op))
        weight = linear.getWeight().getType();
      else if (auto gated = dyn_cast<GatedLinearOp>(op))
        weight = gated.getGate().getType();
      if (!weight || weight.getFormat() != WeightFormat::F32 ||
          weight.getShape()[1] % kPartsGroup != 0 ||
          isSplit(op.getOperand(0).getType()))
        continue;
      // x is the first operand of both kinds of product.
      Value &rows = known[op.getOperand(0)];
      if (!rows) {
        OpBuilder builder(&op);
        auto type = RankedTensorType::get(
            {ShapedType::kDynamic, kFloatParts, weight.getShape()[1]},
            builder.getBF16Type());
        rows = QuantizeRowsOp::create(builder, op.getLoc(), type,
                                      op.getOperand(0));
        ++numSplit;
      }
      op.setOperand(0, rows);
    }
  }
};
} // namespace
