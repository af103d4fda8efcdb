//===- Generate.cpp - checkpoints with generated weights ------------------===//
#include "isthmus/Import/Generate.h"

using namespace isthmus;
using namespace isthmus::import;

Checkpoint import::generateCheckpoint(const GeneratedShape &shape,
                                      uint64_t seed) {
  Checkpoint result;
  result.name = "generated-" + shape.name;
  result.architecture = "llama";
  result.settings = Settings(result.name);
  auto set = [&](const char *name, int64_t value) {
    result.settings.set(name, value);
  };
  set("num_hidden_layers", shape.layers);
  set("hidden_size", shape.hidden);
  set("intermediate_size", shape.feedForward);
  set("vocab_size", shape.vocabulary);
  set("num_attention_heads", shape.heads);
  set("num_key_value_heads", shape.kvHeads);
  set("head_dim", shape.headDim);
  set("max_position_embeddings", 8192);
  result.settings.set("rope_theta", 500000.0);
  result.settings.set("rms_norm_eps", 1e-5);
  uint64_t next = seed;
  auto add = [&](const std::string &name, std::vector<int64_t> sizes) {
    uint64_t bytes = 4;
    for (int64_t size : sizes)
      bytes *= uint64_t(size);
    result.tensors[name] = {"<seed>", next++, bytes, DType::F32,
                            std::move(sizes)};
  };
  int64_t q = shape.heads * shape.headDim;
  int64_t kv = shape.kvHeads * shape.headDim;
  add("model.embed_tokens.weight", {shape.vocabulary, shape.hidden});
  add("model.norm.weight", {shape.hidden});
  if (!shape.tied)
    add("lm_head.weight", {shape.vocabulary, shape.hidden});
  for (int64_t i = 0; i < shape.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", {shape.hidden});
    add(layer + "post_attention_layernorm.weight", {shape.hidden});
    add(layer + "self_attn.q_proj.weight", {q, shape.hidden});
    add(layer + "self_attn.k_proj.weight", {kv, shape.hidden});
    add(layer + "self_attn.v_proj.weight", {kv, shape.hidden});
    add(layer + "self_attn.o_proj.weight", {shape.hidden, q});
    add(layer + "mlp.gate_proj.weight", {shape.feedForward, shape.hidden});
    add(layer + "mlp.up_proj.weight", {shape.feedForward, shape.hidden});
    add(layer + "mlp.down_proj.weight", {shape.hidden, shape.feedForward});
  }
  return result;
}
