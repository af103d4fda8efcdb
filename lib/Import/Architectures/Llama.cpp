//===- Llama.cpp - Llama, Mistral, Qwen2 and Qwen3 ------------------------===//
#include "Decoder.h"

#include <cmath>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;

static OwningOpRef<ModuleOp> build(ModelBuilder &m) {
  const Settings &s = m.settings();
  const std::string &architecture = m.architecture();
  const int64_t hidden = s.size("hidden_size", 1 << 20);
  const int64_t feedForward = s.size("intermediate_size", 1 << 22);
  const int64_t heads = s.size("num_attention_heads", 1 << 12);
  const int64_t kvHeads = s.size("num_key_value_heads", heads, heads);
  const int64_t headDim = s.size("head_dim", 1 << 12, hidden / heads);
  const int64_t vocabulary = s.size("vocab_size");
  const int64_t context = s.size("max_position_embeddings", 1 << 24, 2048);
  const double epsilon = s.number("rms_norm_eps", 1e-12, 0.1, 1e-6);
  Rope rope = readRope(
      s, headDim, {"rope_theta", 10000, {"rope_scaling", "rope_parameters"}});
  // llama.cpp's converter writes what frequencies are divided by as a tensor.
  if (m.hasTensor("rope_freqs.weight")) {
    if (!rope.factors.empty())
      s.reject("rope_scaling.rope_type", "none is, beside rope_freqs");
    rope.factors = m.readTensor("rope_freqs.weight", {headDim / 2});
  }
  if (heads % kvHeads != 0)
    s.reject("num_key_value_heads", "a divisor of num_attention_heads is");
  if (s.text("hidden_act", "silu") != "silu")
    s.reject("hidden_act", "silu is");
  // Mistral's window is on where it is given, Qwen's has a switch.
  int64_t window = s.integer("sliding_window", 0);
  if (!s.flag("use_sliding_window", architecture == "mistral"))
    window = 0;
  else if (window > 0 && s.has("use_sliding_window"))
    s.reject("use_sliding_window", "windows in all layers or none are");
  // llama.cpp's converter turns the rows of llama alone.
  const bool turned = m.isGGUF() && architecture == "llama";
  const WeightForm q{.unpermutedHeads = turned ? heads : 0};
  const WeightForm k{.unpermutedHeads = turned ? kvHeads : 0};

  m.call("embed", "", [&](BlockBuilder &b) {
    return b.embedding("model.embed_tokens", vocabulary, hidden);
  });
  for (int64_t i = 0; i < s.size("num_hidden_layers", 1000); ++i)
    m.call("layer", fmt::format("model.layers.{}.", i), [&](BlockBuilder &b) {
      Value x = b.input;
      Value normed = b.rmsNorm("input_layernorm", x, epsilon);
      Value query = b.linear("self_attn.q_proj", normed, heads * headDim, q);
      Value key = b.linear("self_attn.k_proj", normed, kvHeads * headDim, k);
      Value value = b.linear("self_attn.v_proj", normed, kvHeads * headDim);
      if (architecture == "qwen3") {
        query = b.rmsNorm("self_attn.q_norm", query, epsilon, {}, heads);
        key = b.rmsNorm("self_attn.k_norm", key, epsilon, {}, kvHeads);
      }
      query = b.rotary(query, headDim, rope.theta, rope.factors);
      key = b.rotary(key, headDim, rope.theta, rope.factors);
      Value attended =
          b.attention(query, key, value,
                      {heads, kvHeads, 1 / std::sqrt(double(headDim)), window});
      x = b.add(x, b.linear("self_attn.o_proj", attended, hidden));
      normed = b.rmsNorm("post_attention_layernorm", x, epsilon);
      Value gate = b.linear("mlp.gate_proj", normed, feedForward);
      Value up = b.linear("mlp.up_proj", normed, feedForward);
      Value gated = b.glu(fm::Function::Silu, gate, up);
      return b.add(x, b.linear("mlp.down_proj", gated, hidden));
    });
  callHead(m, vocabulary, epsilon);
  m.endProgram({.contextLength = context, .vocabulary = vocabulary});
  return m.finish();
}

Architecture import::llama() {
  return {{"llama", "mistral", "qwen2", "qwen3"}, decoderNames(), build};
}
