//===- ModelBuilder.cpp - writes a checkpoint as fm IR --------------------===//
#include "isthmus/Import/ModelBuilder.h"

#include "isthmus/Weights/RowOps.h"
#include "isthmus/runtime/Error.h"

#include <fmt/ranges.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;
using rt::Error;

static Location named(OpBuilder &b, StringRef name) {
  return NameLoc::get(b.getStringAttr(name));
}

static fm::WeightType f32Weight(MLIRContext *context, ArrayRef<int64_t> shape) {
  return fm::WeightType::get(context, shape, fm::WeightFormat::F32, 0);
}

static std::string fullName(const std::string &prefix,
                            const std::string &name) {
  return name.starts_with("/") ? name.substr(1) : prefix + name;
}

//===----------------------------------------------------------------------===//
// Model
//===----------------------------------------------------------------------===//

ModelBuilder::ModelBuilder(MLIRContext &context, const Checkpoint &checkpoint)
    : checkpoint(checkpoint), b(&context) {
  context.loadDialect<fm::FMDialect>();
  module = ModuleOp::create(named(b, "model"));
  (*module)->setAttr("fm.architecture",
                     b.getStringAttr(checkpoint.architecture));
}

const Tensor &ModelBuilder::tensorNamed(const std::string &name) {
  auto it = checkpoint.tensors.find(name);
  if (it == checkpoint.tensors.end())
    throw Error("{}: tensor '{}' is missing from the checkpoint",
                checkpoint.settings.file(), name);
  used.insert(name);
  return it->second;
}

/// Throws unless the tensor has the shape, and values that can be weights.
static void checkShape(const Tensor &tensor, const std::string &name,
                       const std::vector<int64_t> &shape) {
  if (tensor.dtype == DType::I64)
    throw Error("{}: tensor '{}' holds integers, which cannot be weights",
                tensor.file, name);
  if (tensor.shape != shape)
    throw Error("{}: tensor '{}' has shape [{}]; the configuration says [{}]",
                tensor.file, name, fmt::join(tensor.shape, ", "),
                fmt::join(shape, ", "));
}

std::vector<float> ModelBuilder::readTensor(const std::string &name,
                                            const std::vector<int64_t> &shape) {
  const Tensor &tensor = tensorNamed(name);
  checkShape(tensor, name, shape);
  rt::MappedFile file(tensor.file);
  const int64_t size = ShapedType::getNumElements(ArrayRef<int64_t>(shape));
  std::vector<float> values(static_cast<size_t>(size));
  weights::dequantize(tensor.dtype,
                      file.slice(tensor.offset, tensor.bytes, name).data(),
                      values);
  return values;
}

std::string ModelBuilder::bind(const std::string &prefix, const Part &part) {
  const std::string name = fullName(prefix, part.name);
  const Tensor &tensor = tensorNamed(name);
  const WeightForm &form = part.form;
  std::string symbol = name;
  if (form.storedRows)
    symbol += fmt::format(".{}", form.firstRow);
  if (!params.insert(symbol).second)
    return symbol;
  // What is stored: all rows, perhaps with outputs and inputs exchanged.
  std::vector<int64_t> whole = part.shape;
  if (form.storedRows)
    whole[0] = form.storedRows;
  std::vector<int64_t> stored = whole;
  if (form.transposed)
    std::reverse(stored.begin(), stored.end());
  checkShape(tensor, name, form.fileShape.empty() ? stored : form.fileShape);
  Location loc = named(b, name);
  OpBuilder::InsertionGuard guard(b);
  if (lastParam)
    b.setInsertionPointAfter(lastParam);
  else
    b.setInsertionPointToStart(module->getBody());
  auto type = [&](ArrayRef<int64_t> shape) {
    return f32Weight(b.getContext(), shape);
  };
  auto param = fm::ParamOp::create(b, loc, symbol, type(part.shape));
  lastParam = param;
  b.setInsertionPointToStart(&param.getBody().emplaceBlock());
  Value value =
      fm::SourceOp::create(b, loc, type(stored), tensor.file,
                           int64_t(tensor.offset), nameOf(tensor.dtype));
  if (form.transposed)
    value = fm::TransposeOp::create(b, loc, type(whole), value);
  if (form.storedRows)
    value = fm::SliceRowsOp::create(b, loc, type(part.shape), value,
                                    b.getI64IntegerAttr(form.firstRow));
  if (form.unpermutedHeads)
    value =
        fm::UnpermuteRowsOp::create(b, loc, value.getType(), value,
                                    b.getI64IntegerAttr(form.unpermutedHeads));
  if (form.added != 0)
    value = fm::AddConstantOp::create(b, loc, value.getType(), value,
                                      b.getF64FloatAttr(form.added));
  fm::YieldOp::create(b, loc, value);
  return symbol;
}

void ModelBuilder::call(const std::string &kind, const std::string &prefix,
                        const std::function<Value(BlockBuilder &)> &body) {
  auto [it, isNew] = blocks.try_emplace(kind);
  Block &block = it->second;
  if (isNew) {
    Type input =
        calls.empty() ? inputType() : blocks.at(calls.back().kind).result;
    b.setInsertionPointToEnd(module->getBody());
    Location loc = named(b, kind);
    auto op = fm::BlockOp::create(b, loc, b.getStringAttr(kind),
                                  TypeAttr::get(b.getFunctionType({}, {})),
                                  nullptr, nullptr);
    mlir::Block &content = op.getBody().emplaceBlock();
    BlockBuilder builder(*this, block, prefix, content);
    builder.input = content.addArgument(input, loc);
    builder.meta = content.addArgument(fm::RowsType::get(b.getContext()), loc);
    b.setInsertionPointToStart(&content);
    Value result = body(builder);
    block.result = result.getType();
    fm::ReturnOp::create(b, loc, result);
    op.setFunctionType(
        b.getFunctionType(content.getArgumentTypes(), {block.result}));
  }
  Call call{kind, prefix, {}, -1};
  if (block.hasState)
    call.state = block.bidirectional ? 0 : states++;
  for (const Part &part : block.parts)
    call.params.push_back(bind(prefix, part));
  calls.push_back(std::move(call));
}

Type ModelBuilder::inputType() const {
  OpBuilder builder(b);
  if (inputFeatures)
    return RankedTensorType::get({ShapedType::kDynamic, inputFeatures},
                                 builder.getF32Type());
  return RankedTensorType::get({ShapedType::kDynamic}, builder.getI32Type());
}

static DictionaryAttr toAttribute(OpBuilder &b, const ImageInput &image,
                                  bool classToken) {
  auto numbers = [&](const std::vector<double> &values) {
    return b.getF64ArrayAttr(values);
  };
  return b.getDictionaryAttr(
      {b.getNamedAttr("size", b.getI64IntegerAttr(image.size)),
       b.getNamedAttr("patch", b.getI64IntegerAttr(image.patch)),
       b.getNamedAttr("shortest_edge", b.getI64IntegerAttr(image.shortestEdge)),
       b.getNamedAttr("filter", b.getI64IntegerAttr(image.filter)),
       b.getNamedAttr("scale", b.getF64FloatAttr(image.scale)),
       b.getNamedAttr("mean", numbers(image.mean)),
       b.getNamedAttr("deviation", numbers(image.deviation)),
       b.getNamedAttr("class_token", b.getBoolAttr(classToken))});
}

void ModelBuilder::endProgram(const ProgramSpec &spec) {
  Location loc = named(b, spec.name);
  Type meta = fm::RowsType::get(b.getContext());
  b.setInsertionPointToEnd(module->getBody());
  auto program = fm::ProgramOp::create(
      b, loc, b.getStringAttr(spec.name),
      TypeAttr::get(b.getFunctionType({inputType(), meta},
                                      {blocks.at(calls.back().kind).result})),
      nullptr, nullptr);
  program->setAttr("fm.context_length",
                   b.getI64IntegerAttr(spec.contextLength));
  if (spec.vocabulary)
    program->setAttr("fm.vocab_size", b.getI64IntegerAttr(spec.vocabulary));
  if (!spec.task.empty())
    program->setAttr("fm.task", b.getStringAttr(spec.task));
  if (spec.resultAtFirst)
    program->setAttr("fm.result_at_first", b.getUnitAttr());
  if (spec.image)
    program->setAttr("fm.image",
                     toAttribute(b, *spec.image,
                                 spec.contextLength > spec.image->patches()));
  if (!spec.labels.empty()) {
    SmallVector<StringRef> labels(spec.labels.begin(), spec.labels.end());
    program->setAttr("fm.labels", b.getStrArrayAttr(labels));
  }
  mlir::Block &body = program.getBody().emplaceBlock();
  Value x = body.addArgument(inputType(), loc);
  Value rows = body.addArgument(meta, loc);
  b.setInsertionPointToStart(&body);
  for (const Call &call : calls) {
    SmallVector<Attribute> symbols;
    for (const std::string &param : call.params)
      symbols.push_back(FlatSymbolRefAttr::get(b.getContext(), param));
    StringRef where = StringRef(call.prefix).rtrim('.');
    x = fm::CallOp::create(
        b, named(b, where.empty() ? StringRef(call.kind) : where),
        blocks.at(call.kind).result, call.kind, ValueRange{x, rows},
        b.getArrayAttr(symbols),
        call.state < 0 ? nullptr : b.getI64IntegerAttr(call.state), nullptr);
  }
  fm::ReturnOp::create(b, loc, x);
  calls.clear();
  states = 0;
  inputFeatures = 0;
}

void ModelBuilder::setSimilarityScale(double scale) {
  (*module)->setAttr("fm.similarity_scale", b.getF64FloatAttr(scale));
}

OwningOpRef<ModuleOp> ModelBuilder::finish() {
  for (const auto &[name, tensor] : checkpoint.tensors)
    if (!used.contains(name))
      throw Error("{}: tensor '{}' is not part of a {} model", tensor.file,
                  name, checkpoint.architecture);
  return std::move(module);
}

//===----------------------------------------------------------------------===//
// Block
//===----------------------------------------------------------------------===//

Location BlockBuilder::location(const std::string &name) {
  return named(model.b, name);
}

Type BlockBuilder::rowsOf(int64_t features) {
  return RankedTensorType::get({ShapedType::kDynamic, features},
                               model.b.getF32Type());
}

Value BlockBuilder::weight(const std::string &name, std::vector<int64_t> shape,
                           const WeightForm &form) {
  fm::WeightType type = f32Weight(model.b.getContext(), shape);
  block.parts.push_back({name, std::move(shape), form});
  return body.addArgument(type, location(name));
}

Value BlockBuilder::embedding(const std::string &name, int64_t vocabulary,
                              int64_t features) {
  return fm::EmbeddingOp::create(
      model.b, location(name), rowsOf(features), input,
      weight(name + ".weight", {vocabulary, features}));
}

Value BlockBuilder::positionEmbedding(const std::string &name, Value x,
                                      int64_t positions,
                                      const WeightForm &form) {
  return fm::PositionEmbeddingOp::create(
      model.b, location(name), x.getType(), x, meta,
      weight(name, {positions, features(x)}, form));
}

Value BlockBuilder::addVector(const std::string &name, Value x,
                              const WeightForm &form) {
  return fm::AddVectorOp::create(model.b, location(name), x.getType(), x,
                                 weight(name, {features(x)}, form));
}

Value BlockBuilder::classToken(const std::string &name, Value x,
                               const WeightForm &form) {
  return fm::ClassTokenOp::create(model.b, location(name), x.getType(), x, meta,
                                  weight(name, {features(x)}, form));
}

Value BlockBuilder::linear(const std::string &name, Value x, int64_t outputs,
                           const WeightForm &form) {
  Value matrix = weight(name + ".weight", {outputs, features(x)}, form), bias;
  if (model.hasTensor(fullName(prefix, name + ".bias"))) {
    WeightForm ofBias = form;
    ofBias.transposed = false;
    ofBias.fileShape.clear();
    bias = weight(name + ".bias", {outputs}, ofBias);
  }
  return fm::LinearOp::create(model.b, location(name), rowsOf(outputs), x,
                              matrix, bias, nullptr);
}

Value BlockBuilder::rmsNorm(const std::string &name, Value x, double epsilon,
                            const WeightForm &form, int64_t heads) {
  return fm::RMSNormOp::create(
      model.b, location(name), x.getType(), x,
      weight(name + ".weight", {features(x) / heads}, form),
      model.b.getF64FloatAttr(epsilon), model.b.getI64IntegerAttr(heads));
}

Value BlockBuilder::layerNorm(const std::string &name, Value x,
                              double epsilon) {
  Value scale = weight(name + ".weight", {features(x)});
  return fm::LayerNormOp::create(model.b, location(name), x.getType(), x, scale,
                                 weight(name + ".bias", {features(x)}),
                                 model.b.getF64FloatAttr(epsilon));
}

Value BlockBuilder::rotary(Value x, int64_t headDim, double theta,
                           ArrayRef<float> factors) {
  return fm::RotaryOp::create(
      model.b, location("rotary"), x.getType(), x, meta,
      model.b.getI64IntegerAttr(headDim), model.b.getF64FloatAttr(theta),
      factors.empty() ? nullptr : model.b.getDenseF32ArrayAttr(factors));
}

Value BlockBuilder::attention(Value q, Value k, Value v,
                              const Attention &attention) {
  if (!state) {
    state = body.insertArgument(2u, fm::StateType::get(model.b.getContext()),
                                location("state"));
    block.hasState = true;
    block.bidirectional = attention.bidirectional;
  }
  OpBuilder &b = model.b;
  const bool windowed = attention.window > 0;
  return fm::AttentionOp::create(
      b, location("attention"), q.getType(), q, k, v, meta, state,
      b.getI64IntegerAttr(attention.heads),
      b.getI64IntegerAttr(attention.kvHeads),
      b.getF64FloatAttr(attention.scale),
      windowed ? b.getI64IntegerAttr(0) : nullptr,
      windowed ? b.getI64IntegerAttr(attention.window) : nullptr,
      attention.bidirectional ? b.getUnitAttr() : nullptr);
}

Value BlockBuilder::activate(fm::Function function, Value x) {
  return fm::ActivateOp::create(model.b, location("activation"), x.getType(),
                                function, x);
}

Value BlockBuilder::glu(fm::Function function, Value gate, Value up) {
  return fm::GluOp::create(model.b, location("activation"), gate.getType(),
                           gate, up, function);
}

Value BlockBuilder::add(Value x, Value y) {
  return fm::AddOp::create(model.b, location("residual"), x, y);
}

Value BlockBuilder::scale(Value x, double factor) {
  return fm::ScaleOp::create(model.b, location("scale"), x.getType(), x,
                             model.b.getF64FloatAttr(factor));
}

Value BlockBuilder::selectRows(Value x) {
  return fm::SelectRowsOp::create(model.b, location("outputs"), x, meta);
}

Value BlockBuilder::meanRows(Value x) {
  return fm::MeanRowsOp::create(model.b, location("mean"), x.getType(), x,
                                meta);
}

Value BlockBuilder::l2Norm(Value x) {
  return fm::L2NormOp::create(model.b, location("norm"), x.getType(), x);
}
