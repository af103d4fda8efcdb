//===- Nodes.cpp - what passes over graphs share --------------------------===//
#include "Nodes.h"

#include "llvm/ADT/SmallPtrSet.h"

using namespace mlir;
using namespace isthmus::graph;

int64_t isthmus::graph::integerOf(NodeOp node, StringRef name,
                                  int64_t otherwise) {
  auto found = node.getOnnxAttributes().getAs<IntegerAttr>(name);
  return found ? found.getInt() : otherwise;
}

double isthmus::graph::realOf(NodeOp node, StringRef name, double otherwise) {
  auto found = node.getOnnxAttributes().getAs<FloatAttr>(name);
  return found ? found.getValueAsDouble() : otherwise;
}

Value isthmus::graph::inputOf(NodeOp node, unsigned index) {
  if (index >= node.getInputs().size() ||
      isa<NoneType>(node.getInputs()[index].getType()))
    return {};
  return node.getInputs()[index];
}

bool isthmus::graph::isPlainProduct(NodeOp node) {
  return node.getOp() == "MatMul" ||
         (node.getOp() == "Gemm" && !integerOf(node, "transA", 0) &&
          realOf(node, "alpha", 1) == 1 && realOf(node, "beta", 1) == 1);
}

bool isthmus::graph::isSingle(Value value) {
  auto type = tensorType(value);
  return type && type.hasStaticShape() && type.getNumElements() == 1;
}

bool isthmus::graph::isConstant(Value value) {
  // Each once: a file may use a value twice, and that one's operands too, as
  // deep as it likes.
  llvm::SmallPtrSet<Operation *, 16> seen;
  SmallVector<Value> left = {value};
  while (!left.empty()) {
    Operation *op = left.pop_back_val().getDefiningOp();
    if (!op || op->getNumRegions() > 0)
      return false;
    if (auto node = dyn_cast<NodeOp>(op);
        node && node.getOp().starts_with("Random"))
      return false;
    if (seen.insert(op).second)
      llvm::append_range(left, op->getOperands());
  }
  return true;
}

void isthmus::graph::eraseUnused(ProgramOp program) {
  for (Operation &op :
       llvm::make_early_inc_range(llvm::reverse(program.getBody().front())))
    if (op.use_empty() && !op.hasTrait<OpTrait::IsTerminator>())
      op.erase();
}

Value NodeMaker::operator()(StringRef op, ValueRange inputs, Type result,
                            ArrayRef<NamedAttribute> attributes) {
  return NodeOp::create(b, loc, result, b.getStringAttr(op), inputs,
                        b.getDictionaryAttr(attributes), name, 0)
      .getResult(0);
}

Value NodeMaker::orNone(Value value) {
  return value ? value : Value(NoneOp::create(b, loc, b.getNoneType()));
}

Value NodeMaker::integers(ArrayRef<int64_t> values) {
  auto type = RankedTensorType::get({int64_t(values.size())}, b.getI64Type());
  return ConstantOp::create(b, loc, type, DenseElementsAttr::get(type, values),
                            nullptr, nullptr);
}
