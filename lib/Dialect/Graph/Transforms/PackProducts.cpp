//===- PackProducts.cpp - graph-pack-products -----------------------------===//
#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/Dialect/Graph/Transforms/Passes.h"

#include "Nodes.h"

namespace isthmus::graph {
#define GEN_PASS_DEF_PACKPRODUCTS
#include "isthmus/Dialect/Graph/Transforms/Passes.h.inc"
} // namespace isthmus::graph

using namespace mlir;
using namespace isthmus;
using namespace isthmus::graph;

namespace {
/// Columns of a panel, and rows that stand side by side.
constexpr int64_t kPanel = 16, kQuad = 4;

struct PackProducts
    : public isthmus::graph::impl::PackProductsBase<PackProducts> {
  using Base::Base;

  void runOnOperation() override {
    for (ProgramOp program : getOperation().getOps<ProgramOp>()) {
      packed.clear();
      filters.clear();
      for (NodeOp node : llvm::make_early_inc_range(program.getOps<NodeOp>()))
        if (node.getOp() == "MatMulInteger")
          packIntegers(node);
        else if (node.getOp() == "ConvInteger")
          packConvolution(node);
        else if (node.getOp() == "Conv")
          takeBias(node);
        else if (isPlainProduct(node))
          packFloats(node);
      eraseUnused(program);
    }
  }

private:
  struct Packed {
    Value matrix, sums;
  };
  /// What several products share, by matrix and whether it is turned.
  llvm::DenseMap<std::pair<Value, unsigned>, Packed> packed;
  /// The same of filters, by weights and zero point.
  llvm::DenseMap<std::pair<Value, Value>, Value> filters;

  static int64_t blocks(int64_t count, int64_t block) {
    return (count + block - 1) / block;
  }

  /// One value, or one for each column.
  static bool isRow(Value value, int64_t columns) {
    auto type = tensorType(value);
    return isSingle(value) ||
           (type && type.hasStaticShape() && type.getRank() >= 1 &&
            type.getShape().back() == columns &&
            type.getNumElements() == columns);
  }

  static NodeOp onlyUser(Value value, StringRef op) {
    if (!value.hasOneUse())
      return {};
    auto node = dyn_cast<NodeOp>(*value.user_begin());
    return node && node.getOp() == op ? node : NodeOp();
  }

  /// The f32 operand of a node beside `value` that has one value a column.
  static Value rowBeside(NodeOp node, Value value, int64_t columns) {
    Value other = node.getInputs()[node.getInputs()[0] == value ? 1 : 0];
    auto type = tensorType(other), out = tensorType(node.getOutputs()[0]),
         own = tensorType(value);
    if (!type || !type.getElementType().isF32() || !isRow(other, columns) ||
        !out || out.getRank() != own.getRank() ||
        type.getRank() > own.getRank())
      return {};
    return other;
  }

  /// Of a node that goes on from a value, the other operand if it suits.
  using Beside = llvm::function_ref<Value(NodeOp next, Value value)>;

  /// Goes on to the only user of what `last` gives, if it is an `op` whose
  /// other operand suits, and returns that; null otherwise.
  static Value follow(NodeOp &last, StringRef op, Beside beside) {
    Value value = last.getOutputs()[0];
    NodeOp next = onlyUser(value, op);
    Value other = next ? beside(next, value) : Value();
    if (other)
      last = next;
    return other;
  }

  /// Goes on over what makes f32 of integers: Cast, a scale, perhaps a bias.
  static void followScale(NodeOp &last, Value &scale, Value &bias,
                          Beside beside) {
    NodeOp end = onlyUser(last.getOutputs()[0], "Cast");
    if (!end || integerOf(end, "to", 0) != int64_t(rt::DataType::F32))
      return;
    if (!(scale = follow(end, "Mul", beside)))
      return;
    bias = follow(end, "Add", beside);
    last = end;
  }

  Packed packedOf(NodeOp node, Value weights) {
    Packed &result = packed[{weights, 0}];
    if (result.matrix)
      return result;
    NodeMaker make(node);
    auto type = tensorType(weights);
    const int64_t rows = type.getDimSize(0), columns = type.getDimSize(1);
    result.matrix =
        make("isthmus.PackIntegers", {weights},
             RankedTensorType::get(
                 {blocks(columns, kPanel), blocks(rows, kQuad), kPanel, kQuad},
                 make.b.getI8Type()));
    result.sums = make(
        "isthmus.PackedSums", {result.matrix},
        RankedTensorType::get({columns}, make.b.getI32Type()),
        {make.b.getNamedAttr("columns", make.b.getI64IntegerAttr(columns))});
    return result;
  }

  static NamedAttribute attribute(OpBuilder &b, StringRef name, int64_t value) {
    return b.getNamedAttr(name, b.getI64IntegerAttr(value));
  }

  void packFloats(NodeOp node) {
    const bool turned = node.getOp() == "Gemm" && integerOf(node, "transB", 0);
    Value weights = node.getInputs()[1];
    auto type = tensorType(weights), x = tensorType(node.getInputs()[0]),
         out = tensorType(node.getOutputs()[0]);
    if (!type || !x || !out || type.getRank() != 2 || !type.hasStaticShape() ||
        x.getRank() < 2 || !type.getElementType().isF32() ||
        type.getNumElements() == 0 || !isConstant(weights))
      return;
    const int64_t rows = type.getDimSize(turned ? 1 : 0),
                  columns = type.getDimSize(turned ? 0 : 1);
    Value bias = inputOf(node, 2);
    if (bias && !isRow(bias, columns))
      return;
    Packed &shared = packed[{weights, turned}];
    if (!shared.matrix) {
      NodeMaker make(node);
      Value matrix = weights;
      if (turned)
        matrix = make(
            "Transpose", {weights},
            RankedTensorType::get({rows, columns}, make.b.getF32Type()),
            {make.b.getNamedAttr("perm", make.b.getDenseI64ArrayAttr({1, 0}))});
      shared.matrix =
          make("isthmus.PackFloats", {matrix},
               RankedTensorType::get({blocks(columns, kPanel), rows, kPanel},
                                     make.b.getF32Type()));
    }
    NodeOp last = node;
    if (!bias)
      bias = follow(last, "Add", [&](NodeOp add, Value value) {
        return rowBeside(add, value, columns);
      });
    NodeMaker make(last);
    Value made = make("isthmus.PackedMatMul",
                      {node.getInputs()[0], shared.matrix, make.orNone(bias)},
                      last.getOutputs()[0].getType(),
                      {attribute(make.b, "columns", columns),
                       attribute(make.b, "rows", rows)});
    last.getOutputs()[0].replaceAllUsesWith(made);
    ++numPacked;
  }

  void packIntegers(NodeOp node) {
    Value weights = node.getInputs()[1], xZero = inputOf(node, 2),
          wZero = inputOf(node, 3);
    auto type = tensorType(weights), x = tensorType(node.getInputs()[0]);
    if (!type || type.getRank() != 2 || !type.hasStaticShape() ||
        !isConstant(weights) || !x || x.getRank() < 2 ||
        type.getDimSize(0) == 0 || type.getDimSize(1) == 0 ||
        (xZero && !isSingle(xZero)) ||
        (wZero && !isRow(wZero, type.getDimSize(1))))
      return;
    const int64_t columns = type.getDimSize(1);
    const Packed matrix = packedOf(node, weights);
    Value scale, bias;
    NodeOp last = node;
    followScale(last, scale, bias, [&](NodeOp next, Value value) {
      return rowBeside(next, value, columns);
    });
    // What is added may come later than the product.
    NodeMaker make(last);
    Value made = make(
        "isthmus.PackedMatMulInteger",
        {node.getInputs()[0], matrix.matrix, matrix.sums, make.orNone(xZero),
         make.orNone(wZero), make.orNone(scale), make.orNone(bias)},
        last.getOutputs()[0].getType(),
        {attribute(make.b, "columns", columns),
         attribute(make.b, "rows", type.getDimSize(0)),
         attribute(make.b, "unsigned",
                   type.getElementType().isUnsignedInteger() ? 1 : 0)});
    last.getOutputs()[0].replaceAllUsesWith(made);
    ++numPacked;
  }

  /// The other operand of an Add or Mul of convolved `value`, if it has one
  /// value, or one for each channel, of the type `element`.
  static Value channelsBeside(NodeOp node, Value value, int64_t channels,
                              Type element) {
    Value other = node.getInputs()[node.getInputs()[0] == value ? 1 : 0];
    auto type = tensorType(other), own = tensorType(value),
         out = tensorType(node.getOutputs()[0]);
    if (!type || !own || !out || type.getElementType() != element ||
        type.getRank() > own.getRank() || out.getRank() != own.getRank())
      return {};
    if (isSingle(other))
      return other;
    const int64_t place = type.getRank() - own.getRank() + 1;
    return place >= 0 && type.hasStaticShape() &&
                   type.getDimSize(unsigned(place)) == channels &&
                   type.getNumElements() == channels
               ? other
               : Value();
  }

  /// A constant that is added to the channels of a convolution becomes its
  /// bias.
  void takeBias(NodeOp node) {
    auto weights = tensorType(node.getInputs()[1]),
         out = tensorType(node.getOutputs()[0]);
    NodeOp add = onlyUser(node.getOutputs()[0], "Add");
    if (!add || inputOf(node, 2) || !weights || !out ||
        weights.isDynamicDim(0) || !weights.getElementType().isF32())
      return;
    const int64_t channels = weights.getDimSize(0);
    Value bias = channelsBeside(add, node.getOutputs()[0], channels,
                                weights.getElementType());
    if (!bias || !isConstant(bias) ||
        tensorType(bias).getNumElements() != channels)
      return;
    NodeMaker make(add);
    Value row = make("Reshape", {bias, make.integers({channels})},
                     RankedTensorType::get({channels}, out.getElementType()));
    Value made = make("Conv", {node.getInputs()[0], node.getInputs()[1], row},
                      add.getOutputs()[0].getType(),
                      llvm::to_vector(node.getOnnxAttributes().getValue()));
    add.getOutputs()[0].replaceAllUsesWith(made);
    ++numPacked;
  }

  /// ConvInteger by constant weights, with what follows it: an addend, the
  /// scale that makes f32 of it, a bias.
  void packConvolution(NodeOp node) {
    Value weights = node.getInputs()[1], xZero = inputOf(node, 2),
          wZero = inputOf(node, 3);
    auto type = tensorType(weights), x = tensorType(node.getInputs()[0]);
    if (!type || !x || !type.hasStaticShape() || type.getRank() < 3 ||
        type.getRank() != x.getRank() || type.getNumElements() == 0 ||
        !isConstant(weights) || (xZero && !isSingle(xZero)) ||
        (wZero && !isConstant(wZero)) ||
        (wZero && !isSingle(wZero) &&
         (!tensorType(wZero) || tensorType(wZero).getRank() != 1 ||
          tensorType(wZero).getDimSize(0) != type.getDimSize(0))))
      return;
    const int64_t channels = type.getDimSize(0), inputs = type.getDimSize(1);
    int64_t words = blocks(inputs, 2);
    for (int64_t size : type.getShape().drop_front(2))
      words *= size;
    Builder types(node.getContext());
    auto beside = [&](Type element) {
      return [channels, element](NodeOp next, Value value) {
        return channelsBeside(next, value, channels, element);
      };
    };
    Value scale, bias;
    NodeOp last = node;
    Value addend = follow(last, "Add", beside(types.getI32Type()));
    followScale(last, scale, bias, beside(types.getF32Type()));
    // What is added may come later than the product.
    NodeMaker make(last);
    Value &filters = this->filters[{weights, wZero}];
    if (!filters) {
      NodeMaker first(node);
      filters =
          first("isthmus.PackFilters", {weights, first.orNone(wZero)},
                RankedTensorType::get({channels, words}, first.b.getI32Type()));
    }
    SmallVector<NamedAttribute> attributes(node.getOnnxAttributes().getValue());
    llvm::erase_if(attributes, [](NamedAttribute one) {
      return one.getName() == "kernel_shape";
    });
    attributes.push_back(make.b.getNamedAttr(
        "kernel_shape",
        make.b.getDenseI64ArrayAttr(type.getShape().drop_front(2))));
    attributes.push_back(attribute(make.b, "inputs", inputs));
    Value made =
        make("isthmus.PackedConvInteger",
             {node.getInputs()[0], filters, make.orNone(xZero),
              make.orNone(addend), make.orNone(scale), make.orNone(bias)},
             last.getOutputs()[0].getType(), attributes);
    last.getOutputs()[0].replaceAllUsesWith(made);
    ++numPacked;
  }
};
} // namespace
