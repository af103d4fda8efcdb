//===- Llama.cpp - Llama-architecture checkpoints as fm IR ----------------===//
#include "isthmus/Import/Llama.h"

#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/runtime/Error.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/Verifier.h"

#include <cmath>
#include <set>

using namespace mlir;
using namespace isthmus;
using rt::Error;

namespace {
class LlamaBuilder {
public:
  LlamaBuilder(MLIRContext &context, const import::Checkpoint &checkpoint)
      : checkpoint(checkpoint), config(checkpoint.config), b(&context),
        tied(!checkpoint.tensors.contains("lm_head.weight")),
        biased(checkpoint.tensors.contains(
            layerName(0, "self_attn.q_proj.bias"))) {}

  OwningOpRef<ModuleOp> build() {
    OwningOpRef<ModuleOp> module = ModuleOp::create(location("model"));
    (*module)->setAttr("fm.architecture", b.getStringAttr(config.architecture));
    b.setInsertionPointToEnd(module->getBody());
    buildParams();
    buildEmbed();
    buildLayer();
    buildHead();
    buildProgram();
    if (used.size() != checkpoint.tensors.size())
      for (const auto &[name, tensor] : checkpoint.tensors)
        if (!used.contains(name) && !name.ends_with("rotary_emb.inv_freq"))
          throw Error("{}: tensor '{}' is not part of a {} model", tensor.file,
                      name, config.architecture);
    return module;
  }

private:
  const import::Checkpoint &checkpoint;
  const import::Config &config;
  OpBuilder b;
  bool tied, biased;
  std::set<std::string> used;

  /// A tensor of a layer, in the order in which the block takes them.
  struct Part {
    const char *name;
    int64_t outputs, inputs; // inputs 0: a vector
    int64_t heads;           // > 0: rows to unpermute
  };

  std::vector<Part> layerParts() const {
    int64_t q = config.heads * config.headDim;
    int64_t kv = config.kvHeads * config.headDim;
    std::vector<Part> parts = {
        {"input_layernorm.weight", config.hidden, 0, 0},
        {"self_attn.q_proj.weight", q, config.hidden, config.heads},
        {"self_attn.k_proj.weight", kv, config.hidden, config.kvHeads},
        {"self_attn.v_proj.weight", kv, config.hidden, 0},
        {"self_attn.o_proj.weight", config.hidden, q, 0},
        {"post_attention_layernorm.weight", config.hidden, 0, 0},
        {"mlp.gate_proj.weight", config.feedForward, config.hidden, 0},
        {"mlp.up_proj.weight", config.feedForward, config.hidden, 0},
        {"mlp.down_proj.weight", config.hidden, config.feedForward, 0}};
    if (biased) {
      parts.push_back({"self_attn.q_proj.bias", q, 0, config.heads});
      parts.push_back({"self_attn.k_proj.bias", kv, 0, config.kvHeads});
      parts.push_back({"self_attn.v_proj.bias", kv, 0, 0});
    }
    return parts;
  }

  static std::string layerName(int64_t layer, const std::string &part) {
    return "model.layers." + std::to_string(layer) + "." + part;
  }

  Location location(StringRef name) {
    return NameLoc::get(b.getStringAttr(name));
  }
  fm::WeightType weightType(int64_t outputs, int64_t inputs) {
    SmallVector<int64_t> shape{outputs};
    if (inputs)
      shape.push_back(inputs);
    return fm::WeightType::get(b.getContext(), shape, fm::WeightFormat::F32, 0);
  }
  Type rows(int64_t features) {
    return RankedTensorType::get({ShapedType::kDynamic, features},
                                 b.getF32Type());
  }
  Type ids() {
    return RankedTensorType::get({ShapedType::kDynamic}, b.getI32Type());
  }
  Type meta() { return fm::RowsType::get(b.getContext()); }

  void buildParam(const std::string &name, int64_t outputs, int64_t inputs,
                  int64_t heads) {
    auto it = checkpoint.tensors.find(name);
    if (it == checkpoint.tensors.end())
      throw Error("tensor '{}' is missing from the checkpoint '{}'", name,
                  config.name);
    const import::Tensor &tensor = it->second;
    std::vector<int64_t> shape{outputs};
    if (inputs)
      shape.push_back(inputs);
    if (tensor.shape != shape)
      throw Error("{}: tensor '{}' has shape [{}]; the configuration says [{}]",
                  tensor.file, name, fmt::join(tensor.shape, ", "),
                  fmt::join(shape, ", "));
    used.insert(name);
    OpBuilder::InsertionGuard guard(b);
    Location loc = location(name);
    fm::WeightType type = weightType(outputs, inputs);
    auto param = fm::ParamOp::create(b, loc, name, type);
    b.setInsertionPointToStart(&param.getBody().emplaceBlock());
    Value value =
        fm::SourceOp::create(b, loc, type, tensor.file, int64_t(tensor.offset),
                             import::nameOf(tensor.dtype));
    if (heads && checkpoint.interleavedRotary)
      value = fm::UnpermuteRowsOp::create(b, loc, type, value,
                                          b.getI64IntegerAttr(heads));
    fm::YieldOp::create(b, loc, value);
  }

  void buildParams() {
    buildParam("model.embed_tokens.weight", config.vocab, config.hidden, 0);
    for (int64_t layer = 0; layer < config.layers; ++layer)
      for (const Part &part : layerParts())
        buildParam(layerName(layer, part.name), part.outputs, part.inputs,
                   part.heads);
    buildParam("model.norm.weight", config.hidden, 0, 0);
    if (!tied)
      buildParam("lm_head.weight", config.vocab, config.hidden, 0);
  }

  /// Opens a block; the caller adds its body and then a return.
  Block &openBlock(StringRef name, ArrayRef<Type> inputs, Type result) {
    auto block = fm::BlockOp::create(
        b, location(name), b.getStringAttr(name),
        TypeAttr::get(b.getFunctionType(inputs, result)), nullptr, nullptr);
    Block &body = block.getBody().emplaceBlock();
    for (Type type : inputs)
      body.addArgument(type, block.getLoc());
    b.setInsertionPointToStart(&body);
    return body;
  }
  void closeBlock(Location loc, Value result) {
    fm::ReturnOp::create(b, loc, result);
    b.setInsertionPointAfter(b.getInsertionBlock()->getParentOp());
  }

  void buildEmbed() {
    Location loc = location("embed");
    Block &body = openBlock(
        "embed", {ids(), meta(), weightType(config.vocab, config.hidden)},
        rows(config.hidden));
    closeBlock(loc, fm::EmbeddingOp::create(b, loc, rows(config.hidden),
                                            body.getArgument(0),
                                            body.getArgument(2)));
  }

  void buildLayer() {
    std::vector<Part> parts = layerParts();
    SmallVector<Type> inputs{rows(config.hidden), meta(),
                             fm::StateType::get(b.getContext())};
    for (const Part &part : parts)
      inputs.push_back(weightType(part.outputs, part.inputs));
    Block &body = openBlock("layer", inputs, rows(config.hidden));
    Value x = body.getArgument(0), rowMeta = body.getArgument(1);
    auto weight = [&](StringRef name) -> Value {
      for (auto [i, part] : llvm::enumerate(parts))
        if (name == part.name)
          return body.getArgument(3 + i);
      return nullptr;
    };
    auto linear = [&](StringRef name, Value in) -> Value {
      Location loc = location(name);
      Value w = weight((name + ".weight").str());
      int64_t outputs = cast<fm::WeightType>(w.getType()).getShape()[0];
      return fm::LinearOp::create(b, loc, rows(outputs), in, w,
                                  weight((name + ".bias").str()), nullptr);
    };
    auto norm = [&](StringRef name, Value in) -> Value {
      return fm::RMSNormOp::create(b, location(name), in.getType(), in,
                                   weight(name),
                                   b.getF64FloatAttr(config.normEpsilon));
    };
    auto rotary = [&](StringRef name, Value in) -> Value {
      return fm::RotaryOp::create(b, location(name), in.getType(), in, rowMeta,
                                  b.getI64IntegerAttr(config.headDim),
                                  b.getF64FloatAttr(config.ropeTheta));
    };
    Value normed = norm("input_layernorm.weight", x);
    Value q = linear("self_attn.q_proj", normed);
    Value k = linear("self_attn.k_proj", normed);
    Value v = linear("self_attn.v_proj", normed);
    q = rotary("self_attn.q_rotary", q);
    k = rotary("self_attn.k_rotary", k);
    Value attended = fm::AttentionOp::create(
        b, location("self_attn"), q.getType(), q, k, v, rowMeta,
        body.getArgument(2), b.getI64IntegerAttr(config.heads),
        b.getI64IntegerAttr(config.kvHeads),
        b.getF64FloatAttr(1.0 / std::sqrt(double(config.headDim))), nullptr,
        nullptr);
    Value projected = linear("self_attn.o_proj", attended);
    x = fm::AddOp::create(b, location("self_attn.residual"), x, projected);
    Value mlpIn = norm("post_attention_layernorm.weight", x);
    Value gate = linear("mlp.gate_proj", mlpIn);
    Value up = linear("mlp.up_proj", mlpIn);
    Value gated = fm::SiluMulOp::create(b, location("mlp.act_fn"),
                                        gate.getType(), gate, up);
    Value down = linear("mlp.down_proj", gated);
    x = fm::AddOp::create(b, location("mlp.residual"), x, down);
    closeBlock(location("layer"), x);
  }

  void buildHead() {
    Location loc = location("lm_head");
    Block &body =
        openBlock("head",
                  {rows(config.hidden), meta(), weightType(config.hidden, 0),
                   weightType(config.vocab, config.hidden)},
                  rows(config.vocab));
    Value x = fm::SelectRowsOp::create(b, loc, body.getArgument(0),
                                       body.getArgument(1));
    x = fm::RMSNormOp::create(b, location("model.norm"), x.getType(), x,
                              body.getArgument(2),
                              b.getF64FloatAttr(config.normEpsilon));
    Value logits = fm::LinearOp::create(b, loc, rows(config.vocab), x,
                                        body.getArgument(3), nullptr, nullptr);
    closeBlock(loc, logits);
  }

  void buildProgram() {
    Location loc = location("main");
    auto program = fm::ProgramOp::create(
        b, loc, b.getStringAttr("main"),
        TypeAttr::get(b.getFunctionType({ids(), meta()}, rows(config.vocab))),
        nullptr, nullptr);
    program->setAttr("fm.context_length",
                     b.getI64IntegerAttr(config.contextLength));
    program->setAttr("fm.vocab_size", b.getI64IntegerAttr(config.vocab));
    Block &body = program.getBody().emplaceBlock();
    Value x = body.addArgument(ids(), loc);
    Value rowMeta = body.addArgument(meta(), loc);
    b.setInsertionPointToStart(&body);
    auto call = [&](StringRef name, StringRef block,
                    ArrayRef<std::string> params, std::optional<int64_t> state,
                    int64_t features) {
      SmallVector<Attribute> symbols;
      for (const std::string &param : params)
        symbols.push_back(FlatSymbolRefAttr::get(b.getContext(), param));
      x = fm::CallOp::create(b, location(name), rows(features), block,
                             ValueRange{x, rowMeta}, b.getArrayAttr(symbols),
                             state ? b.getI64IntegerAttr(*state) : nullptr,
                             nullptr);
    };
    call("embed", "embed", {"model.embed_tokens.weight"}, std::nullopt,
         config.hidden);
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      SmallVector<std::string> params;
      for (const Part &part : layerParts())
        params.push_back(layerName(layer, part.name));
      call("model.layers." + std::to_string(layer), "layer", params, layer,
           config.hidden);
    }
    call("lm_head", "head",
         {"model.norm.weight",
          tied ? "model.embed_tokens.weight" : "lm_head.weight"},
         std::nullopt, config.vocab);
    fm::ReturnOp::create(b, loc, x);
  }
};
} // namespace

OwningOpRef<ModuleOp> import::buildLlama(MLIRContext &context,
                                         const Checkpoint &checkpoint) {
  context.loadDialect<fm::FMDialect>();
  return LlamaBuilder(context, checkpoint).build();
}

import::Checkpoint import::generateCheckpoint(const Config &config, bool tied,
                                              uint64_t seed) {
  Checkpoint result;
  result.config = config;
  uint64_t next = seed;
  auto add = [&](const std::string &name, std::vector<int64_t> shape) {
    uint64_t bytes = 4;
    for (int64_t dim : shape)
      bytes *= uint64_t(dim);
    result.tensors[name] = {"<seed>", next++, bytes, DType::F32,
                            std::move(shape)};
  };
  int64_t q = config.heads * config.headDim;
  int64_t kv = config.kvHeads * config.headDim;
  add("model.embed_tokens.weight", {config.vocab, config.hidden});
  add("model.norm.weight", {config.hidden});
  if (!tied)
    add("lm_head.weight", {config.vocab, config.hidden});
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", {config.hidden});
    add(layer + "post_attention_layernorm.weight", {config.hidden});
    add(layer + "self_attn.q_proj.weight", {q, config.hidden});
    add(layer + "self_attn.k_proj.weight", {kv, config.hidden});
    add(layer + "self_attn.v_proj.weight", {kv, config.hidden});
    add(layer + "self_attn.o_proj.weight", {config.hidden, q});
    add(layer + "mlp.gate_proj.weight", {config.feedForward, config.hidden});
    add(layer + "mlp.up_proj.weight", {config.feedForward, config.hidden});
    add(layer + "mlp.down_proj.weight", {config.hidden, config.feedForward});
  }
  return result;
}
