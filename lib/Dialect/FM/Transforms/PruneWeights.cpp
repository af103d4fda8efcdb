//===- PruneWeights.cpp - fm-prune-weights --------------------------------===//
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/FM/Transforms/Passes.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/SetVector.h"

namespace isthmus::fm {
#define GEN_PASS_DEF_PRUNEWEIGHTS
#include "isthmus/Dialect/FM/Transforms/Passes.h.inc"
} // namespace isthmus::fm

using namespace mlir;
using namespace isthmus::fm;

namespace {
struct PruneWeights : public isthmus::fm::impl::PruneWeightsBase<PruneWeights> {
  using Base::Base;

  void runOnOperation() override {
    SymbolTable symbols(getOperation());
    llvm::SetVector<ParamOp> params;
    for (ProgramOp program : getOperation().getOps<ProgramOp>()) {
      for (CallOp call : program.getOps<CallOp>()) {
        if (!call.getState())
          continue;
        auto block = symbols.lookup<BlockOp>(call.getCallee());
        unsigned first = call.getInputs().size() + 1;
        for (auto [i, ref] :
             llvm::enumerate(call.getParams().getAsRange<FlatSymbolRefAttr>()))
          for (OpOperand &use :
               block.getBody().getArgument(first + i).getUses())
            if (isProductWeight(use))
              params.insert(symbols.lookup<ParamOp>(ref.getValue()));
      }
    }
    for (ParamOp param : params)
      prune(param);
  }

private:
  void prune(ParamOp param) {
    // Before rounding, if the weight is already quantised: what is zero before
    // stays zero after, and group scales then fit the values that remain.
    Operation *before = &param.getBody().front().back();
    Value value = cast<YieldOp>(before).getValue();
    if (auto quantize = value.getDefiningOp<QuantizeOp>()) {
      before = quantize;
      value = quantize.getSource();
    }
    OpBuilder builder(before);
    auto pruned = PruneOp::create(builder, param.getLoc(), value.getType(),
                                  value, builder.getStringAttr(pattern),
                                  builder.getF64FloatAttr(sparsity));
    before->replaceUsesOfWith(value, pruned);
    ++numPruned;
  }
};
} // namespace
