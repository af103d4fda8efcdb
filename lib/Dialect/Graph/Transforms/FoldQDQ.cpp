//===- FoldQDQ.cpp - graph-fold-qdq ---------------------------------------===//
#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/Dialect/Graph/Transforms/Passes.h"

#include "Nodes.h"

namespace isthmus::graph {
#define GEN_PASS_DEF_FOLDQDQ
#include "isthmus/Dialect/Graph/Transforms/Passes.h.inc"
} // namespace isthmus::graph

using namespace mlir;
using namespace isthmus;
using namespace isthmus::graph;

namespace {
/// A DequantizeLinear of bytes, with a scale and perhaps a zero point that are
/// one or one for each column.
struct Dequantised {
  Value values, scale, zero;
  static std::optional<Dequantised> find(Value value, int64_t columnAxis) {
    auto node = value.getDefiningOp<NodeOp>();
    if (!node || node.getOp() != "DequantizeLinear" ||
        integerOf(node, "block_size", 0) != 0)
      return std::nullopt;
    auto type = tensorType(node.getInputs()[0]),
         scale = tensorType(node.getInputs()[1]);
    if (!type || !scale || !type.getElementType().isInteger(8) ||
        !scale.getElementType().isF32())
      return std::nullopt;
    if (!isSingle(node.getInputs()[1])) {
      int64_t axis = integerOf(node, "axis", 1);
      axis = axis < 0 ? axis + type.getRank() : axis;
      if (scale.getRank() != 1 || axis != columnAxis)
        return std::nullopt;
    }
    return Dequantised{node.getInputs()[0], node.getInputs()[1],
                       inputOf(node, 2)};
  }
};

struct FoldQDQ : public isthmus::graph::impl::FoldQDQBase<FoldQDQ> {
  using Base::Base;

  void runOnOperation() override {
    for (ProgramOp program : getOperation().getOps<ProgramOp>()) {
      for (NodeOp node : llvm::make_early_inc_range(program.getOps<NodeOp>()))
        if (isPlainProduct(node))
          fold(node);
      eraseUnused(program);
    }
  }

  void fold(NodeOp node) {
    const bool turned = node.getOp() == "Gemm" && integerOf(node, "transB", 0);
    auto x = Dequantised::find(node.getInputs()[0], -1);
    auto w = Dequantised::find(node.getInputs()[1], turned ? 0 : 1);
    auto out = tensorType(node.getOutputs()[0]);
    if (!x || !w || !out || !isSingle(x->scale) ||
        (x->zero && !isSingle(x->zero)) || !isConstant(w->values) ||
        tensorType(w->values).getRank() != 2)
      return;
    NodeMaker make(node);
    Value weights = w->values;
    if (turned) {
      auto type = tensorType(weights);
      weights = make(
          "Transpose", {weights},
          RankedTensorType::get({type.getDimSize(1), type.getDimSize(0)},
                                type.getElementType()),
          {make.b.getNamedAttr("perm", make.b.getDenseI64ArrayAttr({1, 0}))});
    }
    auto with = [&](Type element) {
      return RankedTensorType::get(out.getShape(), element);
    };
    Value sums =
        make("MatMulInteger",
             {x->values, weights, make.orNone(x->zero), make.orNone(w->zero)},
             with(make.b.getI32Type()));
    Value floats =
        make("Cast", {sums}, with(make.b.getF32Type()),
             {make.b.getNamedAttr(
                 "to", make.b.getI64IntegerAttr(int64_t(rt::DataType::F32)))});
    // Of the first one, so that all dimensions are the second's.
    Type scaleType =
        isSingle(w->scale) ? x->scale.getType() : w->scale.getType();
    if (isSingle(w->scale) &&
        tensorType(w->scale).getRank() > tensorType(x->scale).getRank())
      scaleType = w->scale.getType();
    Value scale = make("Mul", {x->scale, w->scale}, scaleType);
    Value result = make("Mul", {floats, scale}, out);
    if (Value bias = inputOf(node, 2))
      result = make("Add", {result, bias}, out);
    node.getOutputs()[0].replaceAllUsesWith(result);
    node.erase();
    ++numFolded;
  }
};
} // namespace
