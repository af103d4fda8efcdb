//===- OnnxImport.cpp - from ONNX to the graph dialect --------------------===//
#include "isthmus/Import/OnnxImport.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <onnx/onnx_pb.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;
using rt::DataType;
using rt::Error;

namespace {
class GraphImporter {
public:
  GraphImporter(MLIRContext &context, const OnnxModel &model)
      : b(&context), model(model) {}

  OwningOpRef<ModuleOp> run() {
    OwningOpRef<ModuleOp> module = ModuleOp::create(b.getUnknownLoc());
    b.setInsertionPointToStart(module->getBody());
    const onnx::GraphProto &graph = model.proto->graph();
    std::vector<const onnx::ValueInfoProto *> inputs;
    for (const auto &input : graph.input())
      if (!model.places.contains(input.name()) &&
          std::ranges::none_of(graph.initializer(), [&](const auto &tensor) {
            return tensor.name() == input.name();
          }))
        inputs.push_back(&input);
    SmallVector<StringRef> inputNames, outputNames;
    for (const auto *input : inputs)
      inputNames.push_back(input->name());
    for (const auto &output : graph.output())
      outputNames.push_back(output.name());
    auto program = graph::ProgramOp::create(b, b.getUnknownLoc(), "main",
                                            b.getStrArrayAttr(inputNames),
                                            b.getStrArrayAttr(outputNames));
    Block &block = program.getBody().emplaceBlock();
    b.setInsertionPointToStart(&block);
    scopes.emplace_back();
    types.emplace_back();
    noteTypes(graph);
    for (const auto *input : inputs)
      scopes.back()[input->name()] =
          block.addArgument(typeOf(input->type()), b.getUnknownLoc());
    for (const auto &[name, place] : model.places)
      scopes.back()[name] =
          graph::ConstantOp::create(b, named(name), typeNamed(name), nullptr,
                                    b.getStringAttr(place.file.string()),
                                    b.getI64IntegerAttr(int64_t(place.offset)));
    addContents(graph);
    return module;
  }

private:
  OpBuilder b;
  const OnnxModel &model;
  // Of the graph that is read and those around it, innermost last.
  std::vector<std::map<std::string, Value>> scopes;
  std::vector<std::map<std::string, const onnx::TypeProto *>> types;

  Location named(const std::string &name) {
    return NameLoc::get(b.getStringAttr(name));
  }

  void noteTypes(const onnx::GraphProto &graph) {
    for (const auto *list :
         {&graph.input(), &graph.value_info(), &graph.output()})
      for (const auto &info : *list)
        types.back().emplace(info.name(), &info.type());
  }

  Type elementType(int32_t number) {
    Type type = graph::elementType(b.getContext(), DataType(number));
    if (!type)
      throw Error("elements of type {} are not supported", number);
    return type;
  }

  Type typeOf(const onnx::TypeProto &proto) {
    if (proto.has_sequence_type())
      return graph::SequenceType::get(
          b.getContext(), typeOf(proto.sequence_type().elem_type()));
    if (proto.has_optional_type())
      return graph::OptionalType::get(
          b.getContext(), typeOf(proto.optional_type().elem_type()));
    if (!proto.has_tensor_type())
      return b.getNoneType();
    const auto &tensor = proto.tensor_type();
    if (tensor.elem_type() == 0)
      return b.getNoneType();
    Type element = elementType(tensor.elem_type());
    if (!tensor.has_shape())
      return UnrankedTensorType::get(element);
    SmallVector<int64_t> sizes;
    // Inference says 0 where it adds up what it does not know; and a body may
    // be run with other sizes each time, whatever is written in it.
    for (const auto &dim : tensor.shape().dim())
      sizes.push_back(dim.dim_value() > 0 && scopes.size() < 2
                          ? dim.dim_value()
                          : ShapedType::kDynamic);
    return RankedTensorType::get(sizes, element);
  }

  Type typeNamed(const std::string &name) {
    for (auto &scope : llvm::reverse(types))
      if (auto found = scope.find(name); found != scope.end())
        return typeOf(*found->second);
    return b.getNoneType();
  }

  /// CastLike is a Cast whose type an input gives.
  static bool isCastLike(const onnx::NodeProto &node) {
    return node.op_type() == "CastLike" && node.domain().empty() &&
           node.input_size() == 2;
  }

  Value lookup(const std::string &name) {
    for (auto &scope : llvm::reverse(scopes))
      if (auto found = scope.find(name); found != scope.end())
        return found->second;
    throw Error("nothing is called '{}'", name);
  }

  ElementsAttr toAttribute(const onnx::TensorProto &tensor) {
    SmallVector<int64_t> sizes(tensor.dims().begin(), tensor.dims().end());
    auto type = RankedTensorType::get(sizes, elementType(tensor.data_type()));
    if (DataType(tensor.data_type()) == DataType::String) {
      SmallVector<StringRef> texts(tensor.string_data().begin(),
                                   tensor.string_data().end());
      if (int64_t(texts.size()) != type.getNumElements())
        throw Error("tensor '{}': its values do not fit its sizes",
                    tensor.name());
      return DenseStringElementsAttr::get(type, texts);
    }
    return graph::toElements(type, tensorBytes(&tensor));
  }

  Value addConstant(const onnx::TensorProto &tensor, const std::string &name) {
    ElementsAttr value = toAttribute(tensor);
    return graph::ConstantOp::create(b, named(name), value.getType(), value,
                                     nullptr, nullptr);
  }

  /// A constant by the attributes of a Constant node.
  ElementsAttr constantOf(const onnx::NodeProto &node) {
    const auto context = b.getContext();
    auto vectorType = [&](int64_t count, DataType type) {
      return RankedTensorType::get({count}, graph::elementType(context, type));
    };
    for (const auto &attribute : node.attribute()) {
      const std::string &name = attribute.name();
      if (name == "value")
        return toAttribute(attribute.t());
      if (name == "value_int")
        return DenseElementsAttr::get(RankedTensorType::get({}, b.getI64Type()),
                                      attribute.i());
      if (name == "value_float")
        return DenseElementsAttr::get(RankedTensorType::get({}, b.getF32Type()),
                                      attribute.f());
      if (name == "value_ints")
        return DenseElementsAttr::get(
            vectorType(attribute.ints_size(), DataType::I64),
            ArrayRef<int64_t>(attribute.ints().data(),
                              size_t(attribute.ints_size())));
      if (name == "value_floats")
        return DenseElementsAttr::get(
            vectorType(attribute.floats_size(), DataType::F32),
            ArrayRef<float>(attribute.floats().data(),
                            size_t(attribute.floats_size())));
      SmallVector<StringRef> texts;
      if (name == "value_string")
        texts.push_back(attribute.s());
      else if (name == "value_strings")
        texts.append(attribute.strings().begin(), attribute.strings().end());
      else
        continue;
      auto element = graph::elementType(context, DataType::String);
      return DenseStringElementsAttr::get(
          name == "value_string"
              ? RankedTensorType::get({}, element)
              : RankedTensorType::get({int64_t(texts.size())}, element),
          texts);
    }
    throw Error("a constant without a value that is supported");
  }

  Attribute attributeOf(const onnx::AttributeProto &attribute) {
    switch (attribute.type()) {
    case onnx::AttributeProto::INT:
      return b.getI64IntegerAttr(attribute.i());
    case onnx::AttributeProto::FLOAT:
      return b.getF32FloatAttr(attribute.f());
    case onnx::AttributeProto::STRING:
      return b.getStringAttr(attribute.s());
    case onnx::AttributeProto::INTS:
      return b.getDenseI64ArrayAttr(ArrayRef<int64_t>(
          attribute.ints().data(), size_t(attribute.ints_size())));
    case onnx::AttributeProto::FLOATS:
      return b.getDenseF32ArrayAttr(ArrayRef<float>(
          attribute.floats().data(), size_t(attribute.floats_size())));
    case onnx::AttributeProto::STRINGS: {
      SmallVector<StringRef> texts(attribute.strings().begin(),
                                   attribute.strings().end());
      return b.getStrArrayAttr(texts);
    }
    case onnx::AttributeProto::TENSOR:
      return toAttribute(attribute.t());
    case onnx::AttributeProto::TYPE_PROTO:
      return TypeAttr::get(typeOf(attribute.tp()));
    default:
      throw Error("attribute '{}' is of a kind that is not supported",
                  attribute.name());
    }
  }

  void addNode(const onnx::NodeProto &node) {
    if (node.op_type() == "Constant" && node.domain().empty()) {
      ElementsAttr value = constantOf(node);
      scopes.back()[node.output(0)] = graph::ConstantOp::create(
          b, named(node.output(0)), value.getType(), value, nullptr, nullptr);
      return;
    }
    SmallVector<Value> inputs;
    for (const std::string &input : node.input())
      inputs.push_back(input.empty()
                           ? Value(graph::NoneOp::create(b, b.getUnknownLoc(),
                                                         b.getNoneType()))
                           : lookup(input));
    SmallVector<Type> results;
    for (const std::string &output : node.output())
      results.push_back(output.empty() ? Type(b.getNoneType())
                                       : typeNamed(output));
    SmallVector<NamedAttribute> attributes;
    std::map<std::string, const onnx::GraphProto *> bodies;
    for (const auto &attribute : node.attribute()) {
      if (attribute.type() == onnx::AttributeProto::GRAPH)
        bodies[attribute.name()] = &attribute.g();
      else
        attributes.push_back(
            b.getNamedAttr(attribute.name(), attributeOf(attribute)));
    }
    if (isCastLike(node)) {
      auto like = dyn_cast<TensorType>(inputs.pop_back_val().getType());
      if (!like)
        throw Error("the type to cast to is unknown");
      attributes.push_back(
          b.getNamedAttr("to", b.getI64IntegerAttr(int64_t(
                                   graph::dataTypeOf(like.getElementType())))));
    }
    const bool standard = node.domain().empty() || node.domain() == "ai.onnx" ||
                          node.domain() == "ai.onnx.ml" ||
                          node.domain() == "ai.onnx.preview";
    const std::string op = isCastLike(node) ? "Cast"
                           : standard ? node.op_type()
                                      : node.domain() + "." + node.op_type();
    auto made = graph::NodeOp::create(
        b,
        named(!node.name().empty()     ? node.name()
              : node.output_size() > 0 ? node.output(0)
                                       : op),
        results, b.getStringAttr(op), inputs, b.getDictionaryAttr(attributes),
        node.name().empty() ? StringAttr() : b.getStringAttr(node.name()),
        unsigned(bodies.size()));
    unsigned index = 0;
    for (const auto &[name, graph] : bodies)
      addBody(made.getBodies()[index++], *graph);
    for (int i = 0; i < node.output_size(); ++i)
      if (!node.output(i).empty())
        scopes.back()[node.output(i)] = made.getResult(unsigned(i));
  }

  void addBody(Region &region, const onnx::GraphProto &graph) {
    OpBuilder::InsertionGuard guard(b);
    Block &block = region.emplaceBlock();
    b.setInsertionPointToStart(&block);
    scopes.emplace_back();
    types.emplace_back();
    noteTypes(graph);
    for (const auto &input : graph.input())
      scopes.back()[input.name()] =
          block.addArgument(typeOf(input.type()), b.getUnknownLoc());
    addContents(graph);
    types.pop_back();
    scopes.pop_back();
  }

  void addContents(const onnx::GraphProto &graph) {
    if (graph.sparse_initializer_size())
      throw Error("sparse initializers are not supported");
    for (const auto &tensor : graph.initializer())
      scopes.back()[tensor.name()] = addConstant(tensor, tensor.name());
    for (const auto &node : graph.node()) {
      try {
        addNode(node);
      } catch (const Error &error) {
        throw Error("node '{}' ({}): {}",
                    node.name().empty() && node.output_size() ? node.output(0)
                                                              : node.name(),
                    node.op_type(), error.what());
      }
    }
    SmallVector<Value> results;
    for (const auto &output : graph.output())
      results.push_back(lookup(output.name()));
    graph::ReturnOp::create(b, b.getUnknownLoc(), results);
  }
};
} // namespace

OwningOpRef<ModuleOp> isthmus::import::buildGraph(MLIRContext &context,
                                                  const OnnxModel &model) {
  try {
    return GraphImporter(context, model).run();
  } catch (const Error &error) {
    throw Error("{}: {}", model.path.string(), error.what());
  }
}
