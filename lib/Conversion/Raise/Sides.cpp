//===- Sides.cpp - what hangs on sizes and positions alone ----------------===//
#include "Sides.h"

#include "isthmus/runtime/Error.h"

#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/StringSet.h"

#include <fmt/ranges.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::raise;
using rt::DataType;

/// Operators whose results hang on the sizes of their input alone.
static bool readsSizes(Operation *op) {
  auto node = dyn_cast_if_present<graph::NodeOp>(op);
  return node && (node.getOp() == "Shape" || node.getOp() == "Size");
}

Sides::Sides(graph::ProgramOp program, const GraphCompiler &compile,
             std::function<std::vector<int64_t>(Value, const Sample &)> sizesOf)
    : program(program), compile(compile), sizesOf(std::move(sizesOf)) {
  Block &body = program.getBody().front();
  for (auto [argument, name] :
       llvm::zip(body.getArguments(), program.getArgumentNames())) {
    const auto input = inputOf(argument, cast<StringAttr>(name).getValue());
    levels[argument] = input ? Level::Side : Level::Data;
    if (input)
      inputs[argument] = *input;
  }
  for (Operation &op : body) {
    Level level = Level::Constant;
    for (Value operand : op.getOperands())
      level = std::max(level, levels.at(operand));
    // A body may read whatever stands outside.
    if (op.getNumRegions() > 0)
      level = Level::Data;
    if (readsSizes(&op))
      level = std::min(level, Level::Side);
    for (Value result : op.getResults())
      levels[result] = level;
  }
}

/// Masks and positions go by names that all exporters give them, lengths of the
/// cache by what takes them.
std::optional<Sides::Input> Sides::inputOf(Value argument, StringRef name) {
  if (name.contains("mask"))
    return Input::Mask;
  if (name.contains("position"))
    return Input::Position;
  constexpr unsigned kWriteIndices = 2, kNonpadLength = 6;
  for (OpOperand &use : argument.getUses())
    if (auto node = dyn_cast<graph::NodeOp>(use.getOwner())) {
      if (node.getOp() == "TensorScatter" &&
          use.getOperandNumber() == kWriteIndices)
        return Input::Past;
      if (node.getOp() == "Attention" &&
          use.getOperandNumber() == kNonpadLength)
        return Input::Total;
    }
  return std::nullopt;
}

static rt::Tensor makeTensor(DataType type, std::vector<int64_t> sizes,
                             const std::function<int64_t(int64_t)> &element) {
  rt::Tensor tensor = rt::Tensor::allocate(type, std::move(sizes));
  for (int64_t i = 0; i < tensor.count(); ++i) {
    const int64_t value = element(i);
    switch (type) {
    case DataType::I64:
      tensor.as<int64_t>()[i] = value;
      break;
    case DataType::I32:
      tensor.as<int32_t>()[i] = int32_t(value);
      break;
    case DataType::F32:
      tensor.as<float>()[i] = float(value);
      break;
    case DataType::Bool:
      tensor.as<uint8_t>()[i] = uint8_t(value);
      break;
    default:
      throw Unraisable{fmt::format("an input of sizes or positions is {}",
                                   rt::nameOf(type))};
    }
  }
  return tensor;
}

/// What an input is in a sample, or the sizes of a value that depends on data.
rt::Value Sides::supply(Value value, const Sample &sample) {
  const auto type = cast<RankedTensorType>(value.getType());
  const DataType dtype = graph::dataTypeOf(type.getElementType());
  if (isa<BlockArgument>(value)) {
    const Input input = inputs.at(value);
    std::vector<int64_t> sizes(size_t(type.getRank()), 1);
    if (input == Input::Past || input == Input::Total)
      return makeTensor(dtype, sizes, [&](int64_t) {
        return input == Input::Past ? sample.past : sample.total();
      });
    const bool mask = input == Input::Mask;
    if (sizes.empty() || sizes.size() > 2)
      throw Unraisable{"a mask or positions with neither one nor two "
                       "dimensions"};
    sizes.back() = mask ? sample.total() : sample.sequence;
    return makeTensor(dtype, sizes,
                      [&](int64_t i) { return mask ? 1 : sample.past + i; });
  }
  auto node = value.getDefiningOp<graph::NodeOp>();
  const std::vector<int64_t> sizes = sizesOf(node.getInputs()[0], sample);
  if (node.getOp() == "Size") {
    int64_t count = 1;
    for (int64_t size : sizes)
      count *= size;
    return makeTensor(dtype, {}, [&](int64_t) { return count; });
  }
  const auto rank = int64_t(sizes.size());
  auto bound = [&](StringRef name, int64_t otherwise) {
    auto attribute = node.getOnnxAttributes().getAs<IntegerAttr>(name);
    int64_t at = attribute ? attribute.getInt() : otherwise;
    return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const int64_t start = bound("start", 0), end = bound("end", rank);
  return makeTensor(dtype, {std::max<int64_t>(end - start, 0)},
                    [&](int64_t i) { return sizes[size_t(start + i)]; });
}

template <typename T> static Array copyOf(const rt::Tensor &tensor) {
  return {tensor.sizes,
          std::vector<double>(tensor.as<T>(), tensor.as<T>() + tensor.count())};
}

static Array toArray(const rt::Tensor &tensor) {
  switch (tensor.type) {
  case DataType::F32:
    return copyOf<float>(tensor);
  case DataType::F64:
    return copyOf<double>(tensor);
  case DataType::F16:
    return copyOf<_Float16>(tensor);
  case DataType::I64:
    return copyOf<int64_t>(tensor);
  case DataType::I32:
    return copyOf<int32_t>(tensor);
  case DataType::U8:
  case DataType::U4:
  case DataType::Bool:
    return copyOf<uint8_t>(tensor);
  case DataType::I8:
  case DataType::I4:
    return copyOf<int8_t>(tensor);
  default:
    throw Unraisable{fmt::format("a value of {} is needed where the graph is "
                                 "read",
                                 rt::nameOf(tensor.type))};
  }
}

/// A constant that stands in the module.
static std::optional<Array> literal(Value value) {
  auto constant = value.getDefiningOp<graph::ConstantOp>();
  if (!constant || !constant.getValue())
    return std::nullopt;
  const auto type = cast<RankedTensorType>(constant.getType());
  rt::Tensor tensor = rt::Tensor::allocate(
      graph::dataTypeOf(type.getElementType()), type.getShape().vec());
  const std::vector<char> bytes = graph::toBytes(*constant.getValue());
  std::memcpy(tensor.data.get(), bytes.data(), bytes.size());
  return toArray(tensor);
}

Array Sides::evaluate(Value value, const Sample &sample) {
  if (isData(value))
    throw Unraisable{"a value that depends on tokens is needed where the graph "
                     "is read"};
  if (auto known = literal(value))
    return *known;
  // The part of the graph behind it, as a program of its own.
  MLIRContext *context = value.getContext();
  OwningOpRef<ModuleOp> module = ModuleOp::create(UnknownLoc::get(context));
  OpBuilder b = OpBuilder::atBlockBegin(module->getBody());
  auto part = graph::ProgramOp::create(b, b.getUnknownLoc(), "main",
                                       b.getStrArrayAttr({}),
                                       b.getStrArrayAttr({"result"}));
  Block &body = part.getBody().emplaceBlock();
  b.setInsertionPointToStart(&body);
  IRMapping mapping;
  SmallVector<Value> supplied;
  std::function<void(Value)> visit = [&](Value needed) {
    if (mapping.contains(needed))
      return;
    if (!isa<RankedTensorType, NoneType>(needed.getType()))
      throw Unraisable{"sizes or positions have no known rank"};
    Operation *op = needed.getDefiningOp();
    if (!op || (readsSizes(op) && isData(op->getOperand(0)))) {
      supplied.push_back(needed);
      mapping.map(needed,
                  body.addArgument(needed.getType(), b.getUnknownLoc()));
      return;
    }
    for (Value operand : op->getOperands())
      visit(operand);
    Operation *copy = b.clone(*op, mapping);
    copy->setLoc(b.getUnknownLoc());
    if (auto node = dyn_cast<graph::NodeOp>(copy))
      node.removeNameAttr();
  };
  visit(value);
  graph::ReturnOp::create(b, b.getUnknownLoc(), mapping.lookup(value));
  SmallVector<std::string> names;
  for (size_t i = 0; i < supplied.size(); ++i)
    names.push_back(fmt::format("input{}", i));
  SmallVector<StringRef> references(names.begin(), names.end());
  part.setArgumentNamesAttr(b.getStrArrayAttr(references));

  std::string text;
  llvm::raw_string_ostream(text) << *module;
  std::string key = text;
  std::vector<rt::Value> inputs;
  for (Value input : supplied) {
    inputs.push_back(supply(input, sample));
    key += fmt::format(
        "{} ", fmt::join(toArray(inputs.back().needTensor()).values, ","));
  }
  if (auto found = results.find(key); found != results.end())
    return found->second;
  try {
    auto function = compiled.find(text);
    if (function == compiled.end())
      function = compiled.emplace(text, compile(*module)).first;
    const auto outputs = function->second(inputs);
    return results[key] = toArray(outputs[0].needTensor());
  } catch (const rt::Error &error) {
    throw Unraisable{
        fmt::format("with {} tokens after {}, what depends on lengths alone "
                    "fails: {}",
                    sample.sequence, sample.past, error.what())};
  }
}

Array Sides::constant(Value value) {
  Array first = evaluate(value, kSample);
  for (Sample sample : {Sample{1, 0}, Sample{3, 5}})
    if (Array other = evaluate(value, sample);
        other.sizes != first.sizes || other.values != first.values)
      throw Unraisable{"a number depends on the length of the sequence"};
  return first;
}

std::optional<double> Sides::number(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || isData(value))
    return std::nullopt;
  // What is small may be worked out; what is not may be a number expanded.
  if (llvm::all_of(type.getShape(), [](int64_t size) { return size == 1; })) {
    const Array array = level(value) == Level::Constant
                            ? evaluate(value, kSample)
                            : constant(value);
    return array.values.at(0);
  }
  auto node = value.getDefiningOp<graph::NodeOp>();
  static const llvm::StringSet<> moves = {"Cast",      "Expand",  "Reshape",
                                          "Unsqueeze", "Squeeze", "Identity"};
  if (node && moves.contains(node.getOp()))
    return number(node.getInputs()[0]);
  if (auto constant = value.getDefiningOp<graph::ConstantOp>())
    if (auto elements =
            dyn_cast_if_present<DenseElementsAttr>(constant.getValueAttr());
        elements && elements.isSplat())
      return literal(value)->values.at(0);
  return std::nullopt;
}
