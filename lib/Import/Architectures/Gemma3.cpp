//===- Gemma3.cpp - Gemma 3, text -----------------------------------------===//
#include "Rope.h"

#include "isthmus/Import/Architecture.h"

#include <cmath>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;

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
  const double scale =
      1 / std::sqrt(s.number("query_pre_attn_scalar", 1, 1e6, double(headDim)));
  // Layers that see a window turn faster than those that see everything.
  const Rope global = readRope(m, headDim, 1e6);
  const Rope local{s.number("rope_local_base_freq", 1, 1e12, 10000), {}};
  for (const char *cap : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (s.has(cap))
      s.reject(cap, "Gemma 3 has none");
  const int64_t period = s.size("sliding_window_pattern", 1000, 6);
  const std::vector<std::string> types = s.texts("layer_types");
  // The weights are stored as the difference from one; llama.cpp's converter
  // adds it.
  const WeightForm norm{.added = m.isGGUF() ? 0.0 : 1.0};

  m.call("embed", "", [&](BlockBuilder &b) {
    return b.scale(b.embedding("model.embed_tokens", vocabulary, hidden),
                   double(std::sqrt(float(hidden))));
  });
  for (int64_t i = 0; i < s.size("num_hidden_layers", 1000); ++i) {
    const bool isLocal = size_t(i) < types.size()
                             ? types[size_t(i)] == "sliding_attention"
                             : (i + 1) % period != 0;
    const Rope &rope = isLocal ? local : global;
    m.call(isLocal ? "local_layer" : "global_layer",
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
                 q, k, v, {heads, kvHeads, scale, isLocal ? window : 0});
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
  m.call("head", "", [&](BlockBuilder &b) {
    Value x = b.rmsNorm("model.norm", b.selectRows(b.input), epsilon, norm);
    return b.linear(m.hasTensor("lm_head.weight") ? "lm_head"
                                                  : "model.embed_tokens",
                    x, vocabulary);
  });
  return m.finish(context, vocabulary);
}

Architecture import::gemma3() {
  return {
      {"gemma3_text", "gemma3"},
      {{"token_embd", "model.embed_tokens"},
       {"output_norm", "model.norm"},
       {"output", "lm_head"},
       {"rope_freqs", "rope_freqs"},
       {"blk.#.attn_norm", "model.layers.#.input_layernorm"},
       {"blk.#.attn_q", "model.layers.#.self_attn.q_proj"},
       {"blk.#.attn_k", "model.layers.#.self_attn.k_proj"},
       {"blk.#.attn_v", "model.layers.#.self_attn.v_proj"},
       {"blk.#.attn_q_norm", "model.layers.#.self_attn.q_norm"},
       {"blk.#.attn_k_norm", "model.layers.#.self_attn.k_norm"},
       {"blk.#.attn_output", "model.layers.#.self_attn.o_proj"},
       {"blk.#.post_attention_norm", "model.layers.#.post_attention_layernorm"},
       {"blk.#.ffn_norm", "model.layers.#.pre_feedforward_layernorm"},
       {"blk.#.post_ffw_norm", "model.layers.#.post_feedforward_layernorm"},
       {"blk.#.ffn_gate", "model.layers.#.mlp.gate_proj"},
       {"blk.#.ffn_up", "model.layers.#.mlp.up_proj"},
       {"blk.#.ffn_down", "model.layers.#.mlp.down_proj"}},
      build};
}
