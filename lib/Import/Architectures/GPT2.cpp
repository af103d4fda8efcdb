//===- GPT2.cpp - GPT-2 ---------------------------------------------------===//
#include "isthmus/Import/Architecture.h"

#include <cmath>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;

static OwningOpRef<ModuleOp> build(ModelBuilder &m) {
  const Settings &s = m.settings();
  // GPT-2's own names, and those of everybody else, which readers of GGUF use.
  auto either = [&](const char *own, const char *common) {
    return std::string(s.has(own) ? own : common);
  };
  const int64_t hidden = s.size(either("n_embd", "hidden_size"), 1 << 20);
  const int64_t heads =
      s.size(either("n_head", "num_attention_heads"), 1 << 12);
  const int64_t layers = s.size(either("n_layer", "num_hidden_layers"), 1000);
  const int64_t context =
      s.size(either("n_positions", "max_position_embeddings"));
  const int64_t feedForward =
      s.size(either("n_inner", "intermediate_size"), 1 << 22, 4 * hidden);
  const int64_t vocabulary = s.size("vocab_size");
  const double epsilon = s.number("layer_norm_epsilon", 1e-12, 0.1, 1e-5);
  if (hidden % heads != 0)
    s.reject(either("n_head", "num_attention_heads"),
             "a divisor of the hidden size is");
  const std::string function = s.text("activation_function", "gelu_new");
  if (function != "gelu_new" && function != "gelu_pytorch_tanh")
    s.reject("activation_function", "gelu_new is");
  if (s.flag("scale_attn_by_inverse_layer_idx", false))
    s.reject("scale_attn_by_inverse_layer_idx", "false is");

  const std::string root =
      m.hasTensor("transformer.wte.weight") ? "transformer." : std::string();
  // The checkpoints store inputs x outputs; llama.cpp's converter turns them.
  const bool transposed = !m.isGGUF();
  const WeightForm plain{.transposed = transposed};
  auto third = [&](int64_t i) {
    return WeightForm{.transposed = transposed,
                      .firstRow = i * hidden,
                      .storedRows = 3 * hidden};
  };
  for (int64_t i = 0; i < layers; ++i)
    for (const char *mask : {"attn.bias", "attn.masked_bias"})
      m.ignoreTensor(fmt::format("{}h.{}.{}", root, i, mask));

  m.call("embed", root, [&](BlockBuilder &b) {
    return b.positionEmbedding("wpe.weight",
                               b.embedding("wte", vocabulary, hidden), context);
  });
  for (int64_t i = 0; i < layers; ++i)
    m.call("layer", fmt::format("{}h.{}.", root, i), [&](BlockBuilder &b) {
      Value x = b.input;
      Value normed = b.layerNorm("ln_1", x, epsilon);
      Value q = b.linear("attn.c_attn", normed, hidden, third(0));
      Value k = b.linear("attn.c_attn", normed, hidden, third(1));
      Value v = b.linear("attn.c_attn", normed, hidden, third(2));
      Value attended = b.attention(
          q, k, v,
          {heads, heads, 1 / std::sqrt(double(hidden) / double(heads))});
      x = b.add(x, b.linear("attn.c_proj", attended, hidden, plain));
      Value inner = b.linear("mlp.c_fc", b.layerNorm("ln_2", x, epsilon),
                             feedForward, plain);
      inner = b.activate(fm::Function::GeluTanh, inner);
      return b.add(x, b.linear("mlp.c_proj", inner, hidden, plain));
    });
  m.call("head", root, [&](BlockBuilder &b) {
    Value x = b.layerNorm("ln_f", b.selectRows(b.input), epsilon);
    return b.linear(m.hasTensor("lm_head.weight") ? "/lm_head" : "wte", x,
                    vocabulary);
  });
  m.endProgram({.contextLength = context, .vocabulary = vocabulary});
  return m.finish();
}

Architecture import::gpt2() {
  return {{"gpt2"},
          {{"token_embd", "wte"},
           {"position_embd", "wpe"},
           {"output_norm", "ln_f"},
           {"output", "lm_head"},
           {"blk.#.attn_norm", "h.#.ln_1"},
           {"blk.#.attn_qkv", "h.#.attn.c_attn"},
           {"blk.#.attn_output", "h.#.attn.c_proj"},
           {"blk.#.ffn_norm", "h.#.ln_2"},
           {"blk.#.ffn_up", "h.#.mlp.c_fc"},
           {"blk.#.ffn_down", "h.#.mlp.c_proj"}},
          build};
}
