//===- Decoder.cpp - what descriptions of decoders share ------------------===//
#include "Decoder.h"

#include <cmath>

using namespace isthmus;
using namespace isthmus::import;

/// Long waves turn `factor` times slower, short ones as before, and those in
/// between something in between (Llama 3.1).
static float llama3Factor(const Settings &s, const std::string &group,
                          double frequency, double factor) {
  const double low = s.number(group + ".low_freq_factor", 1e-3, 1e3);
  const double high = s.number(group + ".high_freq_factor", 1e-3, 1e3);
  const auto original =
      double(s.size(group + ".original_max_position_embeddings"));
  const double waves = original * frequency / (2 * M_PI);
  if (waves < low)
    return float(factor);
  if (waves > high)
    return 1;
  const double smooth = (waves - low) / (high - low);
  return float(1 / ((1 - smooth) / factor + smooth));
}

Rope import::readRope(const Settings &s, int64_t headDim,
                      const RopeSettings &names) {
  Rope rope{s.number(names.theta, 1, 1e12, names.defaultTheta), {}};
  for (const std::string &group : names.groups) {
    rope.theta = s.number(group + ".rope_theta", 1, 1e12, rope.theta);
    const std::string key =
        group + (s.has(group + ".rope_type") ? ".rope_type" : ".type");
    const std::string type = s.text(key, "default");
    if (type == "default" || type == "none")
      continue;
    if (type != "linear" && type != "llama3")
      s.reject(key, "default, linear and llama3 are");
    if (!rope.factors.empty())
      s.reject(key, "one scaling is");
    const double factor = s.number(group + ".factor", 1, 1e4);
    for (int64_t i = 0; i < headDim / 2; ++i) {
      const double frequency =
          std::pow(rope.theta, -2.0 * double(i) / double(headDim));
      rope.factors.push_back(type == "linear"
                                 ? float(factor)
                                 : llama3Factor(s, group, frequency, factor));
    }
  }
  return rope;
}

std::vector<Architecture::TensorName>
import::decoderNames(std::vector<Architecture::TensorName> own) {
  // The first of two entries counts.
  own.insert(own.end(),
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
              {"blk.#.ffn_norm", "model.layers.#.post_attention_layernorm"},
              {"blk.#.ffn_gate", "model.layers.#.mlp.gate_proj"},
              {"blk.#.ffn_up", "model.layers.#.mlp.up_proj"},
              {"blk.#.ffn_down", "model.layers.#.mlp.down_proj"}});
  return own;
}

void import::callHead(ModelBuilder &model, int64_t vocabulary, double epsilon,
                      const WeightForm &norm) {
  model.call("head", "", [&](BlockBuilder &b) {
    auto x = b.rmsNorm("model.norm", b.selectRows(b.input), epsilon, norm);
    return b.linear(model.hasTensor("lm_head.weight") ? "lm_head"
                                                      : "model.embed_tokens",
                    x, vocabulary);
  });
}
