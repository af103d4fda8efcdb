//===- Operators.cpp - operators of graphs that become code ---------------===//
#include "isthmus/Codegen/Graph/Operators.h"

using namespace mlir;
using namespace isthmus;

const Operator *isthmus::findOperator(std::string_view name) {
  for (OperatorTable table :
       {elementwiseOperators(), reductionOperators(), movementOperators(),
        indexingOperators(), sizeOperators(), productOperators(),
        convolutionOperators(), poolingOperators(), normalizationOperators(),
        quantizationOperators(), recurrentOperators(), signalOperators(),
        visionOperators()})
    for (const Operator &op : table)
      if (op.name == name)
        return &op;
  return nullptr;
}

bool isthmus::canEmit(const NodeSpec &spec) {
  const Operator *op = findOperator(spec.op);
  if (!op || (op->supports && !op->supports(spec)))
    return false;
  auto number = [](const TensorSpec &operand) {
    return operand.type != DataType::String && operand.type != DataType::C64 &&
           operand.type != DataType::C128;
  };
  // Of aliases and of shapes only sizes are looked at.
  if (!op->compute || op->name == "Shape" || op->name == "Size")
    return true;
  return llvm::all_of(spec.inputs, number) &&
         llvm::all_of(spec.outputs, number);
}

std::pair<std::string, std::string>
isthmus::emitNode(ModuleOp module, const NodeSpec &spec, StringRef name,
                  const TargetDescription &target) {
  const Operator *op = findOperator(spec.op);
  Location loc = NameLoc::get(StringAttr::get(module.getContext(), name));
  std::string shape = (name + "_shape").str(), kernel;
  {
    NodeBuilder n(module, shape, spec, op->grain, target, loc);
    op->shape(n);
    n.finish();
  }
  if (op->compute) {
    kernel = name.str();
    NodeBuilder n(module, kernel, spec, op->grain, target, loc);
    op->compute(n);
    n.finish();
  }
  return {shape, kernel};
}

void isthmus::shapeOf(NodeBuilder &n, size_t output, ArrayRef<Scalar> sizes) {
  if (!n.has(n.out(output)))
    return;
  for (size_t d = 0; d < sizes.size(); ++d)
    n.setSize(output, d, sizes[d]);
  if (output != 0)
    return;
  // Not read back: they may have come out as other sizes than the model says.
  Scalar elements = n.index(1);
  for (Scalar size : sizes)
    elements = elements * size;
  n.setTilesBy(elements);
}

void isthmus::sameSizes(NodeBuilder &n, size_t number) {
  shapeOf(n, 0, n.sizes(number));
}

void isthmus::shapeAsInput(NodeBuilder &n) {
  for (size_t o = 0; o < n.spec.outputs.size(); ++o)
    shapeOf(n, o, n.sizes(0));
}

void isthmus::shapeBroadcast(NodeBuilder &n) {
  std::vector<NodeBuilder::Scalars> operands;
  for (size_t i = 0; i < n.inputs(); ++i)
    if (n.has(i))
      operands.push_back(n.sizes(i));
  shapeOf(n, 0, n.broadcastSizes(operands));
}

Lines::Lines(NodeBuilder &n, Scalar axis) {
  length = inner = n.index(1);
  for (size_t d = 0; d < n.rank(0); ++d) {
    length = select(axis == double(d), n.size(0, d), length);
    inner = select(axis == double(d), n.stride(0, d), inner);
  }
  count = n.count(0) / max(length, 1);
}

Scalar Lines::start(Scalar i) const {
  Scalar safe = max(inner, 1), outer = i / safe;
  return outer * length * inner + (i - outer * safe);
}

NodeBuilder::Scalars isthmus::namedAxes(NodeBuilder &n, size_t input,
                                        size_t rank) {
  using Scalars = NodeBuilder::Scalars;
  Scalars named(rank, n.truth(false));
  auto mark = [&](Scalars state, Scalar axis) {
    axis = select(axis < 0, axis + double(rank), axis);
    for (size_t d = 0; d < rank; ++d)
      state[d] = state[d] | (axis == double(d));
    return state;
  };
  if (n.operand(input).integers) {
    for (int64_t axis : *n.operand(input).integers)
      named = mark(named, n.index(axis));
    return named;
  }
  if (rank == 0)
    return named;
  return n.loop(
      n.index(0), n.count(input), named, [&](Scalar i, ArrayRef<Scalar> state) {
        return mark(state.vec(), n.convert(n.load(input, i), DataType::I64));
      });
}

Scalar isthmus::checkedIndex(NodeBuilder &n, Scalar index, Scalar size) {
  Scalar wrapped = select(index < 0, index + size, index);
  Scalar inside = (wrapped >= 0) & (wrapped < size);
  n.require(inside, rt::kGraphIndex);
  return select(inside, wrapped, n.index(0));
}
