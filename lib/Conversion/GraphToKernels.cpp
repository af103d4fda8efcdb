//===- GraphToKernels.cpp - kernels and message of a graph ----------------===//
#include "isthmus/Conversion/GraphToKernels.h"

#include "isthmus/runtime/HostOperators.h"

#include "llvm/Support/FormatVariadic.h"
#include <map>

using namespace mlir;
using namespace isthmus;

/// Integers of constants that kernels are made for: axes, sizes, and the like.
static constexpr int64_t kMostKnownIntegers = 64;

static TensorSpec operandOf(Value value) {
  TensorSpec spec;
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type)
    return spec;
  spec.type = graph::dataTypeOf(type.getElementType());
  for (int64_t size : type.getShape())
    spec.sizes.push_back(size == ShapedType::kDynamic ? -1 : size);
  auto constant = value.getDefiningOp<graph::ConstantOp>();
  if (!constant || !constant.getValue() ||
      type.getNumElements() > kMostKnownIntegers)
    return spec;
  if (spec.type == rt::DataType::I64 || spec.type == rt::DataType::I32) {
    spec.integers.emplace();
    for (const APInt &element :
         cast<DenseElementsAttr>(*constant.getValue()).getValues<APInt>())
      spec.integers->push_back(element.getSExtValue());
  }
  return spec;
}

/// The operators in the body of a graph::kFusedOp.
static void addSteps(Block &body, NodeSpec &spec) {
  llvm::DenseMap<Value, int64_t> numbers;
  for (BlockArgument argument : body.getArguments())
    numbers[argument] = argument.getArgNumber();
  for (graph::NodeOp node : body.getOps<graph::NodeOp>()) {
    NodeSpec::Step step{specOf(node), {}};
    for (size_t i = 0; i < step.spec.inputs.size(); ++i) {
      auto found = numbers.find(node.getInputs()[i]);
      step.values.push_back(found == numbers.end() ? -1 : found->second);
    }
    numbers[node.getResult(0)] =
        int64_t(spec.inputs.size() + spec.steps.size());
    spec.steps.push_back(std::move(step));
  }
}

NodeSpec isthmus::specOf(graph::NodeOp node) {
  NodeSpec spec;
  spec.op = node.getOp().str();
  spec.attributes = node.getOnnxAttributes();
  for (Value input : node.getInputs())
    spec.inputs.push_back(operandOf(input));
  for (Value output : node.getOutputs())
    spec.outputs.push_back(operandOf(output));
  // What is missing at the end is as if it were not there.
  while (!spec.inputs.empty() && !spec.inputs.back().present() &&
         isa<NoneType>(node.getInputs()[spec.inputs.size() - 1].getType()))
    spec.inputs.pop_back();
  while (!spec.outputs.empty() && !spec.outputs.back().present() &&
         isa<NoneType>(node.getOutputs()[spec.outputs.size() - 1].getType()))
    spec.outputs.pop_back();
  if (spec.op == graph::kFusedOp)
    addSteps(node.getBodies().front().front(), spec);
  return spec;
}

static bool allRanked(graph::NodeOp node) {
  auto ranked = [](Type type) { return isa<RankedTensorType, NoneType>(type); };
  return llvm::all_of(node.getInputs().getTypes(), ranked) &&
         llvm::all_of(node.getOutputs().getTypes(), ranked);
}

/// What an operand's type is, for the host: sequences and texts are its
/// business.
static bool isForHost(graph::NodeOp node) {
  if (!node.getBodies().empty() && node.getOp() != graph::kFusedOp)
    return true;
  auto special = [](Type type) {
    auto tensor = dyn_cast<TensorType>(type);
    return isa<graph::SequenceType, graph::OptionalType>(type) ||
           (tensor && isa<graph::StringType>(tensor.getElementType()));
  };
  return llvm::any_of(node.getInputs().getTypes(), special) ||
         llvm::any_of(node.getOutputs().getTypes(), special);
}

static bool runsOnHost(graph::NodeOp node) {
  return rt::findHostOperator(node.getOp()) &&
         (!findOperator(node.getOp()) || isForHost(node) ||
          node.getOp() == "Identity");
}

static bool isEmitted(graph::NodeOp node) {
  return allRanked(node) && canEmit(specOf(node));
}

bool isthmus::isElementwise(graph::NodeOp node) {
  return node.getBodies().empty() && allRanked(node) && canFuse(specOf(node));
}

bool isthmus::isPacking(graph::NodeOp node) {
  StringRef op = node.getOp();
  return op == "isthmus.PackFloats" || op == "isthmus.PackIntegers" ||
         op == "isthmus.PackedSums" || op == "isthmus.PackFilters";
}

std::vector<UnsupportedNode>
isthmus::findUnsupported(graph::ProgramOp program) {
  std::vector<UnsupportedNode> result;
  program.walk([&](graph::NodeOp node) {
    if (isEmitted(node) || runsOnHost(node) || isPacking(node))
      return;
    std::string name = node.getName().value_or("").str();
    if (name.empty())
      if (auto loc = dyn_cast<NameLoc>(node.getLoc()))
        name = loc.getName().str();
    std::string reason;
    if (!findOperator(node.getOp()))
      reason = "no such operator";
    else if (!allRanked(node))
      reason = "the rank of an operand is unknown";
    else
      reason = "not with these types or attributes";
    result.push_back({name, node.getOp().str(), reason});
  });
  return result;
}

namespace {
class GraphConversion {
public:
  GraphConversion(ModuleOp kernels, const TargetDescription &target,
                  const std::function<uint32_t(Operation *)> &addWeight,
                  bundle::Graph &out)
      : kernels(kernels), target(target), addWeight(addWeight), out(out) {}

  void run(graph::ProgramOp program) {
    findUnpacked(program.getBody().front());
    convertBody(program.getBody().front(), *out.mutable_body(), true);
    auto name = [&](bundle::GraphValue &value, Attribute text) {
      value.set_name(cast<StringAttr>(text).getValue().str());
    };
    for (auto [number, text] :
         llvm::zip(out.body().inputs(), program.getArgumentNames()))
      name(*out.mutable_values(int(number)), text);
    for (auto [number, text] :
         llvm::zip(out.body().outputs(), program.getResultNames()))
      name(*out.mutable_values(int(number)), text);
  }

private:
  ModuleOp kernels;
  const TargetDescription &target;
  const std::function<uint32_t(Operation *)> &addWeight;
  bundle::Graph &out;
  llvm::DenseMap<Value, uint32_t> numbers;
  llvm::DenseSet<Value> constants;      ///< and what follows from them alone
  llvm::DenseSet<Operation *> unpacked; ///< read by nodes that pack alone
  std::map<std::string, std::pair<std::string, std::string>> made;

  int64_t numberOf(Value value) {
    if (isa<NoneType>(value.getType()))
      return -1;
    auto [found, fresh] =
        numbers.try_emplace(value, uint32_t(out.values_size()));
    if (!fresh)
      return found->second;
    bundle::GraphValue *message = out.add_values();
    if (auto tensor = dyn_cast<TensorType>(value.getType())) {
      message->set_type(uint32_t(graph::dataTypeOf(tensor.getElementType())));
      message->set_ranked(tensor.hasRank());
      if (tensor.hasRank())
        for (int64_t size : tensor.getShape())
          message->add_sizes(size == ShapedType::kDynamic ? -1 : size);
    }
    return found->second;
  }

  void findUnpacked(Block &block) {
    for (Operation &op : llvm::reverse(block))
      if (!op.use_empty() && llvm::all_of(op.getUsers(), [&](Operation *user) {
            auto node = dyn_cast<graph::NodeOp>(user);
            return (node && isPacking(node)) || unpacked.contains(user);
          }))
        unpacked.insert(&op);
  }

  /// Whether an operation of a block becomes a node of a body.
  bool isNode(Operation &op) const {
    auto node = dyn_cast<graph::NodeOp>(op);
    return node && !isPacking(node) && !unpacked.contains(&op);
  }

  void convertBody(Block &block, bundle::GraphBody &body, bool outermost) {
    for (BlockArgument argument : block.getArguments())
      body.add_inputs(uint32_t(numberOf(argument)));
    for (Operation &op : block) {
      if (isNode(op))
        convertNode(cast<graph::NodeOp>(op), body, outermost);
      else if (isa<graph::ConstantOp, graph::NodeOp>(op) &&
               !unpacked.contains(&op))
        convertConstant(&op);
    }
    for (Value result : block.getTerminator()->getOperands())
      body.add_outputs(uint32_t(numberOf(result)));
    addLastUses(block, body);
  }

  void convertConstant(Operation *op) {
    Value result = op->getResult(0);
    constants.insert(result);
    const auto number = uint32_t(numberOf(result));
    bundle::GraphConstant *message = out.add_constants();
    message->set_value(number);
    // Types of constants are exact.
    auto constant = dyn_cast<graph::ConstantOp>(op);
    auto texts = constant && constant.getValue()
                     ? dyn_cast<DenseStringElementsAttr>(*constant.getValue())
                     : DenseStringElementsAttr();
    if (!texts) {
      message->set_weight(addWeight(op));
      return;
    }
    for (int64_t i = 0; i < texts.getNumElements(); ++i)
      message->add_texts(
          texts.getRawStringData()[texts.isSplat() ? 0 : size_t(i)].str());
  }

  void convertNode(graph::NodeOp node, bundle::GraphBody &body,
                   bool outermost) {
    bundle::GraphNode *message = body.add_nodes();
    std::string name = node.getName().value_or("").str();
    if (name.empty())
      if (auto loc = dyn_cast<NameLoc>(node.getLoc()))
        name = loc.getName().str();
    message->set_name(name);
    message->set_op(node.getOp().str());
    NodeSpec spec = specOf(node);
    const bool emitted = isEmitted(node);
    for (size_t i = 0; i < spec.inputs.size(); ++i)
      message->add_inputs(numberOf(node.getInputs()[i]));
    for (size_t i = 0; i < spec.outputs.size(); ++i)
      message->add_outputs(numberOf(node.getOutputs()[i]));
    if (emitted) {
      auto [shape, kernel] = kernelsFor(spec);
      message->set_shape_function(shape);
      message->set_kernel(kernel);
    } else {
      for (NamedAttribute attribute : node.getOnnxAttributes())
        convertAttribute(attribute, *message->add_attributes());
      for (Region &region : node.getBodies())
        convertBody(region.front(), *message->add_bodies(), false);
    }
    // Bodies may use anything; random numbers and the like are not emitted.
    const bool constant =
        outermost && emitted && llvm::all_of(node.getInputs(), [&](Value v) {
          return isa<NoneType>(v.getType()) || constants.contains(v);
        });
    message->set_constant(constant);
    if (constant)
      constants.insert_range(node.getOutputs());
  }

  /// All that decides on the code of a node.
  static void write(const NodeSpec &spec, llvm::raw_ostream &text) {
    text << spec.op << spec.attributes;
    auto add = [&](const std::vector<TensorSpec> &operands) {
      text << "|";
      for (const TensorSpec &operand : operands) {
        text << int(operand.type) << "[";
        llvm::interleave(operand.sizes, text, ",");
        text << "]";
        if (operand.integers) {
          text << "=";
          llvm::interleave(*operand.integers, text, ",");
        }
        text << ";";
      }
    };
    add(spec.inputs);
    add(spec.outputs);
    for (const NodeSpec::Step &step : spec.steps) {
      text << "(";
      llvm::interleave(step.values, text, ",");
      write(step.spec, text);
      text << ")";
    }
  }

  std::pair<std::string, std::string> kernelsFor(const NodeSpec &spec) {
    std::string key;
    llvm::raw_string_ostream text(key);
    write(spec, text);
    auto [found, fresh] = made.try_emplace(key);
    if (fresh)
      found->second = emitNode(
          kernels, spec,
          llvm::formatv("n{0}_{1}", made.size() - 1, spec.op).str(), target);
    return found->second;
  }

  void convertAttribute(NamedAttribute attribute,
                        bundle::GraphAttribute &message) {
    message.set_name(attribute.getName().str());
    Attribute value = attribute.getValue();
    if (auto integer = dyn_cast<IntegerAttr>(value))
      message.add_integers(integer.getInt());
    else if (auto number = dyn_cast<FloatAttr>(value))
      message.add_floats(float(number.getValueAsDouble()));
    else if (auto text = dyn_cast<StringAttr>(value))
      message.add_texts(text.getValue().str());
    else if (auto integers = dyn_cast<DenseI64ArrayAttr>(value))
      message.mutable_integers()->Add(integers.asArrayRef().begin(),
                                      integers.asArrayRef().end());
    else if (auto numbers = dyn_cast<DenseF32ArrayAttr>(value))
      message.mutable_floats()->Add(numbers.asArrayRef().begin(),
                                    numbers.asArrayRef().end());
    else if (auto tensor = dyn_cast<DenseStringElementsAttr>(value))
      for (StringRef text : tensor.getRawStringData())
        message.add_texts(text.str());
    else if (auto tensor = dyn_cast<DenseElementsAttr>(value)) {
      if (isa<FloatType>(tensor.getElementType()))
        for (const APFloat &number : tensor.getValues<APFloat>())
          message.add_floats(float(number.convertToDouble()));
      else
        for (const APInt &integer : tensor.getValues<APInt>())
          message.add_integers(integer.getSExtValue());
    } else if (auto texts = dyn_cast<ArrayAttr>(value))
      for (StringRef text : texts.getAsValueRange<StringAttr>())
        message.add_texts(text.str());
  }

  /// Values of a block end with the last of its nodes that uses them, itself or
  /// in its bodies.
  void addLastUses(Block &block, bundle::GraphBody &body) {
    llvm::DenseMap<Operation *, int> places;
    int count = 0;
    for (Operation &op : block)
      if (isNode(op))
        places[&op] = count++;
    auto end = [&](Value value) {
      int last = -1;
      for (Operation *user : value.getUsers()) {
        Operation *own = block.findAncestorOpInBlock(*user);
        if (own && own == block.getTerminator())
          return;
        if (own)
          if (auto found = places.find(own); found != places.end())
            last = std::max(last, found->second);
      }
      if (Operation *maker = value.getDefiningOp(); maker && last < 0)
        last = places.lookup(maker);
      if (last >= 0 && !isa<NoneType>(value.getType()))
        body.mutable_nodes(last)->add_last_uses(uint32_t(numberOf(value)));
    };
    for (BlockArgument argument : block.getArguments())
      end(argument);
    for (Operation &op : block)
      if (isNode(op))
        for (Value output : op.getResults())
          end(output);
  }
};
} // namespace

void isthmus::convertGraph(
    graph::ProgramOp program, ModuleOp kernels, const TargetDescription &target,
    const std::function<uint32_t(Operation *)> &addWeight, bundle::Graph &out) {
  GraphConversion(kernels, target, addWeight, out).run(program);
}
