//===- Operators.cpp - operators of graphs that become code ---------------===//
#include "isthmus/Codegen/Graph/Operators.h"

#include "isthmus/runtime/Error.h"

using namespace mlir;
using namespace isthmus;

const Operator *isthmus::findOperator(std::string_view name) {
  for (OperatorTable table :
       {elementwiseOperators(), reductionOperators(), movementOperators(),
        indexingOperators(), sizeOperators(), productOperators(),
        packedProductOperators(), convolutionOperators(),
        packedConvolutionOperators(), transposedConvolutionOperators(),
        poolingOperators(), normalizationOperators(), quantizationOperators(),
        recurrentOperators(), signalOperators(), visionOperators()})
    for (const Operator &op : table)
      if (op.name == name)
        return &op;
  return nullptr;
}

namespace {
/// Ranks that an operator's input may have: emitters rely on them, and files
/// are not to be believed.
struct RankRule {
  std::string_view op;
  size_t input, least, most;
};
constexpr size_t kAny = 64;
constexpr RankRule kRankRules[] = {
    {"MatMul", 0, 1, kAny},
    {"MatMul", 1, 1, kAny},
    {"MatMulInteger", 0, 1, kAny},
    {"MatMulInteger", 1, 1, kAny},
    {"QLinearMatMul", 0, 1, kAny},
    {"QLinearMatMul", 3, 1, kAny},
    {"Gemm", 0, 2, 2},
    {"Gemm", 1, 2, 2},
    {"Gemm", 2, 0, 2},
    {"Det", 0, 2, kAny},
    {"DepthToSpace", 0, 4, 4},
    {"SpaceToDepth", 0, 4, 4},
    {"MaxPool", 0, 3, kAny},
    {"AveragePool", 0, 3, kAny},
    {"LpPool", 0, 3, kAny},
    {"MaxUnpool", 0, 3, kAny},
    {"GlobalMaxPool", 0, 2, kAny},
    {"GlobalAveragePool", 0, 2, kAny},
    {"LRN", 0, 2, kAny},
    {"BatchNormalization", 0, 2, kAny},
    {"InstanceNormalization", 0, 2, kAny},
    {"RNN", 0, 3, 3},
    {"RNN", 1, 3, 3},
    {"RNN", 2, 3, 3},
    {"GRU", 0, 3, 3},
    {"GRU", 1, 3, 3},
    {"GRU", 2, 3, 3},
    {"LSTM", 0, 3, 3},
    {"LSTM", 1, 3, 3},
    {"LSTM", 2, 3, 3},
    {"Trilu", 0, 2, kAny},
    {"ReverseSequence", 0, 2, kAny},
    {"EyeLike", 0, 2, 2},
    {"DFT", 0, 2, kAny},
    {"STFT", 0, 2, 3},
    {"GridSample", 0, 3, kAny},
    {"RoiAlign", 1, 2, 2},
    {"AffineGrid", 0, 3, 3},
    {"Col2Im", 0, 3, 3},
    {"CausalConvWithState", 0, 3, 3},
    {"CausalConvWithState", 1, 3, 3},
    {"CausalConvWithState", 3, 3, 3},
    {"DeformConv", 2, 4, 4},
    {"DeformConv", 4, 4, 4},
    {"GatherND", 0, 1, kAny},
    {"GatherND", 1, 1, kAny},
    {"ScatterND", 0, 1, kAny},
    {"ScatterND", 1, 1, kAny},
    {"ArrayFeatureExtractor", 0, 1, kAny},
    {"ArrayFeatureExtractor", 1, 1, kAny},
};

bool hasRanks(const NodeSpec &spec) {
  return llvm::all_of(kRankRules, [&](const RankRule &rule) {
    if (rule.op != spec.op || rule.input >= spec.inputs.size() ||
        !spec.inputs[rule.input].present())
      return true;
    const size_t rank = spec.inputs[rule.input].rank();
    return rank >= rule.least && rank <= rule.most;
  });
}
} // namespace

bool isthmus::canEmit(const NodeSpec &spec) {
  const Operator *op = findOperator(spec.op);
  if (!op || !hasRanks(spec) || (op->supports && !op->supports(spec)))
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

bool isthmus::canFuse(const NodeSpec &spec) {
  const Operator *op = findOperator(spec.op);
  if (!op || !op->element || spec.outputs.size() != 1 || !canEmit(spec))
    return false;
  // Numbers of less than eight bits and small floats are coded when they are
  // stored.
  auto plain = [](const TensorSpec &operand) {
    return !operand.present() ||
           NodeBuilder::computeType(operand.type) == operand.type ||
           operand.type == DataType::F16 || operand.type == DataType::BF16;
  };
  return llvm::all_of(spec.inputs, plain) && llvm::all_of(spec.outputs, plain);
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
  // A file may say another rank than its operators give.
  if (sizes.size() != n.rank(n.out(output)))
    throw rt::Error("{}: its result has {} dimensions, the model says {}",
                    n.spec.op, sizes.size(), n.rank(n.out(output)));
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
