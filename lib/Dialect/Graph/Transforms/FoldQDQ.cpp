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
        else if (node.getOp() == "Conv")
          foldConvolution(node);
      eraseUnused(program);
    }
  }

  static Value toFloat(NodeMaker &make, Value sums) {
    return make(
        "Cast", {sums},
        RankedTensorType::get(tensorType(sums).getShape(), make.b.getF32Type()),
        {make.b.getNamedAttr(
            "to", make.b.getI64IntegerAttr(int64_t(rt::DataType::F32)))});
  }

  /// The product of both scales.
  static Value scaleOf(NodeMaker &make, const Dequantised &x,
                       const Dequantised &w) {
    // Of the first one, so that all dimensions are the second's.
    Type type = isSingle(w.scale) ? x.scale.getType() : w.scale.getType();
    if (isSingle(w.scale) &&
        tensorType(w.scale).getRank() > tensorType(x.scale).getRank())
      type = w.scale.getType();
    return make("Mul", {x.scale, w.scale}, type);
  }

  /// A value for each channel, as it goes with pictures of so many dimensions.
  static Value alongChannels(NodeMaker &make, Value value, int64_t spatial) {
    auto type = tensorType(value);
    if (type.getRank() == 0)
      return value;
    SmallVector<int64_t> sizes(size_t(spatial) + 1, 1), target = sizes;
    sizes[0] = type.getDimSize(0);
    target[0] = -1;
    return make("Reshape", {value, make.integers(target)},
                RankedTensorType::get(sizes, type.getElementType()));
  }

  void foldConvolution(NodeOp node) {
    auto x = Dequantised::find(node.getInputs()[0], -1);
    auto w = Dequantised::find(node.getInputs()[1], 0);
    auto out = tensorType(node.getOutputs()[0]);
    if (!x || !w || !out || !isSingle(x->scale) ||
        (x->zero && !isSingle(x->zero)) || !isConstant(w->values) ||
        out.getRank() < 3)
      return;
    Value bias = inputOf(node, 2);
    if (bias && (!tensorType(bias) || tensorType(bias).getRank() != 1 ||
                 !tensorType(bias).getElementType().isF32()))
      return;
    NodeMaker make(node);
    const int64_t spatial = out.getRank() - 2;
    Value sums =
        make("ConvInteger",
             {x->values, w->values, make.orNone(x->zero), make.orNone(w->zero)},
             RankedTensorType::get(out.getShape(), make.b.getI32Type()),
             llvm::to_vector(node.getOnnxAttributes().getValue()));
    Value scale = alongChannels(make, scaleOf(make, *x, *w), spatial);
    Value result = make("Mul", {toFloat(make, sums), scale}, out);
    if (bias)
      result = make("Add", {result, alongChannels(make, bias, spatial)}, out);
    node.getOutputs()[0].replaceAllUsesWith(result);
    node.erase();
    ++numFolded;
  }

  void fold(NodeOp node) {
    const bool turned = node.getOp() == "Gemm" && integerOf(node, "transB", 0);
    auto x = Dequantised::find(node.getInputs()[0], -1);
    auto w = Dequantised::find(node.getInputs()[1], turned ? 0 : 1);
    auto out = tensorType(node.getOutputs()[0]);
    if (!x || !w || !out || !isSingle(x->scale) ||
        (x->zero && !isSingle(x->zero)))
      return;
    // Columns of their own only one matrix has.
    const bool single = isSingle(w->scale) && (!w->zero || isSingle(w->zero));
    if (!(single && node.getOp() == "MatMul") &&
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
    Value sums =
        make("MatMulInteger",
             {x->values, weights, make.orNone(x->zero), make.orNone(w->zero)},
             RankedTensorType::get(out.getShape(), make.b.getI32Type()));
    Value floats = toFloat(make, sums), scale = scaleOf(make, *x, *w);
    Value result = make("Mul", {floats, scale}, out);
    if (Value bias = inputOf(node, 2))
      result = make("Add", {result, bias}, out);
    node.getOutputs()[0].replaceAllUsesWith(result);
    node.erase();
    ++numFolded;
  }
};
} // namespace
