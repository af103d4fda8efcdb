//===- Weights.cpp - from constants of a graph to parameters of fm --------===//
#include "Weights.h"

#include "llvm/ADT/StringSet.h"
#include <fmt/ranges.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::raise;
using rt::DataType;

Weight Weight::transpose() const {
  Weight result = *this;
  result.transposed = !transposed;
  result.scaleAxis = 1 - scaleAxis;
  std::reverse(result.shape.begin(), result.shape.end());
  return result;
}

Weight Weight::rows(int64_t from, int64_t count) const {
  Weight result = *this;
  result.first += from;
  result.shape[0] = count;
  return result;
}

static int64_t countOf(ArrayRef<int64_t> shape) {
  return ShapedType::getNumElements(shape);
}

/// Nodes that leave the order of elements as it is.
static bool keepsElements(graph::NodeOp node) {
  static const llvm::StringSet<> kept = {"Identity", "Reshape", "Unsqueeze",
                                         "Squeeze", "Flatten"};
  if (kept.contains(node.getOp()))
    return true;
  auto isFloat = [](Value value) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    return type && isa<FloatType>(type.getElementType());
  };
  return node.getOp() == "Cast" && isFloat(node.getInputs()[0]) &&
         isFloat(node.getOutputs()[0]);
}

std::optional<Stored> Weights::findStored(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || !type.hasStaticShape() || type.getNumElements() == 0)
    return std::nullopt;
  while (auto node = value.getDefiningOp<graph::NodeOp>()) {
    if (!keepsElements(node))
      return std::nullopt;
    value = node.getInputs()[0];
  }
  auto constant = value.getDefiningOp<graph::ConstantOp>();
  auto stored = dyn_cast<RankedTensorType>(value.getType());
  if (!constant || !stored || !stored.hasStaticShape() ||
      stored.getNumElements() != type.getNumElements())
    return std::nullopt;
  return Stored{constant, type.getShape().vec()};
}

std::optional<Weight> Weights::find(Value value) {
  auto asStored = [&]() -> std::optional<Weight> {
    auto stored = findStored(value);
    if (!stored)
      return std::nullopt;
    return Weight(*stored);
  };
  auto node = value.getDefiningOp<graph::NodeOp>();
  if (!node || sides.level(value) != Sides::Level::Constant)
    return asStored();
  const StringRef op = node.getOp();
  if (op == "Transpose") {
    auto inner = find(node.getInputs()[0]);
    auto order = node.getOnnxAttributes().getAs<DenseI64ArrayAttr>("perm");
    if (!inner || inner->shape.size() != 2 ||
        (order && order.asArrayRef() != ArrayRef<int64_t>{1, 0}))
      return std::nullopt;
    return inner->transpose();
  }
  if (op == "Add") {
    for (unsigned side : {0u, 1u})
      if (auto number = sides.number(node.getInputs()[side]))
        if (auto inner = find(node.getInputs()[1 - side])) {
          inner->added += *number;
          return inner;
        }
    return std::nullopt;
  }
  if (op == "DequantizeLinear") {
    auto values = findStored(node.getInputs()[0]),
         scales = findStored(node.getInputs()[1]);
    if (!values || !scales)
      return std::nullopt;
    Weight weight(*values);
    weight.scales = scales;
    auto attribute = [&](StringRef name, int64_t otherwise) {
      auto found = node.getOnnxAttributes().getAs<IntegerAttr>(name);
      return found ? found.getInt() : otherwise;
    };
    const auto rank = int64_t(weight.shape.size());
    int64_t axis = attribute("axis", 1);
    axis = axis < 0 ? axis + rank : std::min(axis, rank - 1);
    weight.scaleAxis = size_t(axis);
    if (node.getInputs().size() > 2 &&
        !isa<NoneType>(node.getInputs()[2].getType())) {
      weight.zero = sides.number(node.getInputs()[2]);
      if (!weight.zero && !(weight.zeros = findStored(node.getInputs()[2])))
        return std::nullopt;
    }
    return weight;
  }
  return asStored();
}

std::optional<Weight> Weights::findVector(Value value, int64_t size) {
  if (sides.level(value) != Sides::Level::Constant)
    return std::nullopt;
  auto weight = find(value);
  if (!weight || weight->scales || weight->transposed ||
      countOf(weight->shape) != size || weight->shape.empty() ||
      weight->shape.back() != size)
    return std::nullopt;
  weight->shape = {size};
  weight->values.shape = {size};
  return weight;
}

fm::WeightType Weights::typeOf(const Weight &weight) const {
  return fm::WeightType::get(context, weight.shape, fm::WeightFormat::F32, 0);
}

static std::string_view formatOf(DataType type) {
  switch (type) {
  case DataType::F32:
    return "f32";
  case DataType::F16:
    return "f16";
  case DataType::BF16:
    return "bf16";
  case DataType::U8:
    return "u8";
  case DataType::I8:
    return "i8";
  case DataType::U4:
    return "u4";
  case DataType::I4:
    return "i4";
  default:
    throw Unraisable{fmt::format("a weight is stored as {}", rt::nameOf(type))};
  }
}

static DataType dataTypeOf(graph::ConstantOp op) {
  return graph::dataTypeOf(
      cast<RankedTensorType>(op.getType()).getElementType());
}

static std::vector<float> literalOf(const Stored &stored, bool transposed) {
  graph::ConstantOp op = stored.op;
  auto elements = dyn_cast<DenseElementsAttr>(*op.getValue());
  if (!elements)
    throw Unraisable{"a weight has no values that can be read"};
  std::vector<float> values;
  if (isa<FloatType>(elements.getElementType())) {
    for (APFloat value : elements.getValues<APFloat>()) {
      bool loses = false;
      value.convert(APFloat::IEEEsingle(), APFloat::rmNearestTiesToEven,
                    &loses);
      values.push_back(value.convertToFloat());
    }
  } else {
    const bool isSigned =
        !cast<IntegerType>(elements.getElementType()).isUnsigned();
    for (const APInt &value : elements.getValues<APInt>())
      values.push_back(isSigned ? float(value.getSExtValue())
                                : float(value.getZExtValue()));
  }
  if (!transposed)
    return values;
  const auto rows = size_t(stored.shape[0]), columns = size_t(stored.shape[1]);
  std::vector<float> turned(values.size());
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < columns; ++c)
      turned[c * rows + r] = values[r * columns + c];
  return turned;
}

Value Weights::emit(OpBuilder &b, const Stored &stored, bool transposed) {
  auto typed = [&](ArrayRef<int64_t> shape) {
    return fm::WeightType::get(b.getContext(), shape, fm::WeightFormat::F32, 0);
  };
  graph::ConstantOp op = stored.op;
  Location loc = op.getLoc();
  std::vector<int64_t> turned(stored.shape.rbegin(), stored.shape.rend());
  const std::vector<int64_t> &shape = transposed ? turned : stored.shape;
  if (op.getValue())
    return fm::LiteralOp::create(
        b, loc, typed(shape),
        b.getDenseF32ArrayAttr(literalOf(stored, transposed)));
  const DataType dtype = dataTypeOf(op);
  if (rt::packedBits(dtype) < 8 && stored.shape.back() % 2 != 0)
    throw Unraisable{"rows of a weight of four bits do not end on whole bytes"};
  Value value = fm::SourceOp::create(
      b, loc, typed(stored.shape), op.getFileAttr(), op.getOffsetAttr(),
      b.getStringAttr(std::string(formatOf(dtype))));
  if (transposed)
    value = fm::TransposeOp::create(b, loc, typed(shape), value);
  return value;
}

static std::string keyOf(const Stored &stored) {
  return fmt::format("{}[{}]", fmt::ptr(stored.op.getAsOpaquePointer()),
                     fmt::join(stored.shape, ","));
}

std::string Weights::parameter(const Weight &weight) {
  std::string key = fmt::format(
      "{} {} {} {} {} {} {} {}", keyOf(weight.values), weight.transposed,
      weight.added, weight.zero.value_or(0), weight.scaleAxis, weight.first,
      fmt::join(weight.shape, ","), weight.scales.has_value());
  for (const auto &part : {weight.scales, weight.zeros})
    if (part)
      key += keyOf(*part);
  auto [symbol, fresh] = symbols.try_emplace(key);
  if (!fresh)
    return symbol->second;
  auto loc = dyn_cast<NameLoc>(weight.values.op->getLoc());
  std::string name = loc ? loc.getName().str() : "weight";
  std::vector<int64_t> whole = weight.values.shape;
  if (weight.transposed)
    std::reverse(whole.begin(), whole.end());
  const bool part = whole != weight.shape;
  if (part)
    name += fmt::format(".{}", weight.first);
  while (!names.insert(name).second)
    name += "'";
  symbol->second = name;

  OpBuilder b = OpBuilder::atBlockEnd(module.getBody());
  const Location at = weight.values.op->getLoc();
  auto param = fm::ParamOp::create(b, at, name, typeOf(weight));
  b.setInsertionPointToStart(&param.getBody().emplaceBlock());
  auto add = [&](Value value, double number) -> Value {
    if (number == 0)
      return value;
    return fm::AddConstantOp::create(b, at, value.getType(), value,
                                     b.getF64FloatAttr(number));
  };
  const bool matrix = whole.size() == 2;
  if (whole.empty() || whole.size() > 2)
    throw Unraisable{
        fmt::format("weight '{}' has {} dimensions", name, whole.size())};
  Value value = emit(b, weight.values, weight.transposed);
  if (weight.scales) {
    Stored scales = *weight.scales;
    const bool blocks = scales.shape.size() == 2;
    if (scales.shape.empty())
      scales.shape = {1};
    if (!blocks && countOf(scales.shape) > 1 && matrix && weight.scaleAxis != 0)
      throw Unraisable{fmt::format(
          "weight '{}' has scales for its inputs, not its outputs", name)};
    value = add(value, -weight.zero.value_or(0));
    Value zeros;
    if (weight.zeros) {
      Stored stored = *weight.zeros;
      stored.shape = scales.shape;
      zeros = emit(b, stored, blocks && weight.transposed);
    }
    value = fm::DequantizeOp::create(
        b, at, value.getType(), value,
        emit(b, scales, blocks && weight.transposed), zeros);
  }
  if (part)
    value = fm::SliceRowsOp::create(b, at, typeOf(weight), value,
                                    b.getI64IntegerAttr(weight.first));
  fm::YieldOp::create(b, at, add(value, weight.added));
  return name;
}
