//===- Gemma3.cpp - Gemma 3, text -----------------------------------------===//
#include "Decoder.h"

#include <cmath>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;

/// Which layers see a window: as the configuration lists them, or all but every
/// sixth.
static std::vector<bool> localLayers(const Settings &s, int64_t layers) {
  const int64_t period = s.size("sliding_window_pattern", 1000, 6);
  const std::vector<std::string> types = s.texts("layer_types");
  if (!types.empty() && int64_t(types.size()) != layers)
    s.reject("layer_types", "a type for each layer is");
  std::vector<bool> result;
  for (int64_t i = 0; i < layers; ++i) {
    if (types.empty()) {
      result.push_back((i + 1) % period != 0);
      continue;
    }
    const std::string &type = types[size_t(i)];
    if (type != "sliding_attention" && type != "full_attention")
      s.reject("layer_types", "sliding_attention and full_attention are");
    result.push_back(type == "sliding_attention");
  }
  return result;
}

static OwningOpRef<ModuleOp> build(ModelBuilder &m) {
  const Settings &s = m.settings();
  const int64_t hidden = s.size("hidden_size", 1 << 20);
  const int64_t feedForward = s.size("intermediate_size", 1 << 22);
  const int64_t heads = s.size("num_attention_heads", 1 << 12);
  const int64_t kvHeads = s.size("num_key_value_heads", heads, heads);
  const int64_t headDim = s.size("head_dim", 1 << 12, 256);
  const int64_t vocabulary = s.size("vocab_size");
  const int64_t context = s.size("max_position_embeddings", 1 << 24, 131072);
  const int64_t window = s.size("sliding_window", 1 << 24, 4096);
  const double epsilon = s.number("rms_norm_eps", 1e-12, 0.1, 1e-6);
  // GGUF does not say; of the published sizes the 27B, which alone has 62
  // layers, divides otherwise.
  const bool is27B = m.isGGUF() && s.size("num_hidden_layers", 1000) == 62;
  const double scale =
      1 / std::sqrt(s.number("query_pre_attn_scalar", 1, 1e6,
                             double(is27B ? hidden / heads : headDim)));
  // Layers that see a window turn faster than those that see everything.
  const Rope global = readRope(
      s, headDim,
      {"rope_theta", 1e6, {"rope_scaling", "rope_parameters.full_attention"}});
  const Rope local = readRope(
      s, headDim,
      {"rope_local_base_freq", 10000, {"rope_parameters.sliding_attention"}});
  for (const char *cap : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (s.has(cap))
      s.reject(cap, "Gemma 3 has none");
  for (const char *name : {"hidden_activation", "hidden_act"})
    if (s.text(name, "gelu_pytorch_tanh") != "gelu_pytorch_tanh")
      s.reject(name, "gelu_pytorch_tanh is");
  const int64_t layers = s.size("num_hidden_layers", 1000);
  const std::vector<bool> isLocal = localLayers(s, layers);
  // The weights are stored as the difference from one; llama.cpp's converter
  // adds it.
  const WeightForm norm{.added = m.isGGUF() ? 0.0 : 1.0};

  m.call("embed", "", [&](BlockBuilder &b) {
    return b.scale(b.embedding("model.embed_tokens", vocabulary, hidden),
                   double(std::sqrt(float(hidden))));
  });
  for (int64_t i = 0; i < layers; ++i) {
    const bool windowed = isLocal[size_t(i)];
    const Rope &rope = windowed ? local : global;
    m.call(windowed ? "local_layer" : "global_layer",
           fmt::format("model.layers.{}.", i), [&](BlockBuilder &b) {
             Value x = b.input;
             Value normed = b.rmsNorm("input_layernorm", x, epsilon, norm);
             Value q = b.linear("self_attn.q_proj", normed, heads * headDim);
             Value k = b.linear("self_attn.k_proj", normed, kvHeads * headDim);
             Value v = b.linear("self_attn.v_proj", normed, kvHeads * headDim);
             q = b.rmsNorm("self_attn.q_norm", q, epsilon, norm, heads);
             k = b.rmsNorm("self_attn.k_norm", k, epsilon, norm, kvHeads);
             q = b.rotary(q, headDim, rope.theta, rope.factors);
             k = b.rotary(k, headDim, rope.theta, rope.factors);
             Value attended = b.attention(
                 q, k, v, {heads, kvHeads, scale, windowed ? window : 0});
             Value projected = b.linear("self_attn.o_proj", attended, hidden);
             x = b.add(x, b.rmsNorm("post_attention_layernorm", projected,
                                    epsilon, norm));
             normed = b.rmsNorm("pre_feedforward_layernorm", x, epsilon, norm);
             Value gated = b.glu(fm::Function::GeluTanh,
                                 b.linear("mlp.gate_proj", normed, feedForward),
                                 b.linear("mlp.up_proj", normed, feedForward));
             Value down = b.linear("mlp.down_proj", gated, hidden);
             return b.add(x, b.rmsNorm("post_feedforward_layernorm", down,
                                       epsilon, norm));
           });
  }
  callHead(m, vocabulary, epsilon, norm);
  m.endProgram({.contextLength = context, .vocabulary = vocabulary});
  return m.finish();
}

Architecture import::gemma3() {
  return {{"gemma3_text", "gemma3"},
          decoderNames(
              {{"blk.#.post_attention_norm",
                "model.layers.#.post_attention_layernorm"},
               {"blk.#.ffn_norm", "model.layers.#.pre_feedforward_layernorm"},
               {"blk.#.post_ffw_norm",
                "model.layers.#.post_feedforward_layernorm"}}),
          build};
}
