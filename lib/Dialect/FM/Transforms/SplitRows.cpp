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
      if (!weight || weight.isQuantized())
        continue;
      const PackedLayout layout = weight.getPackedLayout();
      if (partsOf(layout.format) == 0 || layout.inputs % kPartsGroup != 0)
        continue;
      // x is the first operand of both kinds of product.
      Value x = unrounded(op.getOperand(0));
      if (!isa<Float32Type>(getElementTypeOrSelf(x)))
        continue;
      Value &rows = known[x];
      if (!rows) {
        OpBuilder builder(&op);
        auto type = RankedTensorType::get(
            {ShapedType::kDynamic, partsOf(layout.format), layout.inputs},
            builder.getBF16Type());
        rows = QuantizeRowsOp::create(builder, op.getLoc(), type, x);
        ++numSplit;
      }
      op.setOperand(0, rows);
    }
  }

  /// What was rounded to bf16: a matrix unit's rows are, too.
  static Value unrounded(Value rows) {
    auto rounding = rows.getDefiningOp<QuantizeRowsOp>();
    return rounding ? rounding.getX() : rows;
  }
};
} // namespace
