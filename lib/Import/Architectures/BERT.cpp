//===- BERT.cpp - BERT as a sentence encoder ------------------------------===//
//
// arXiv:1810.04805, pooled as sentence-transformers does (arXiv:1908.10084).
//
//===----------------------------------------------------------------------===//
#include "Encoder.h"
#include "isthmus/Import/Architecture.h"

#include <algorithm>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;

static constexpr LayerNames kLayer{"attention.self.query",
                                   "attention.self.key",
                                   "attention.self.value",
                                   "attention.output.dense",
                                   "attention.output.LayerNorm",
                                   "intermediate.dense",
                                   "output.dense",
                                   "output.LayerNorm"};

static OwningOpRef<ModuleOp> build(ModelBuilder &m) {
  const Settings &s = m.settings();
  // Readers of GGUF know the epsilon by the name that GPT-2 has for it.
  const double epsilon = s.number("layer_norm_epsilon", 1e-13, 0.1, 1e-12);
  const LayerSizes sizes =
      readLayerSizes(s, "", {768, 3072, 12, 12, epsilon}, "gelu");
  const int64_t vocabulary = s.size("vocab_size");
  const int64_t positions = s.size("max_position_embeddings");
  const int64_t types = s.size("type_vocab_size", 1 << 10, 2);
  if (s.text("position_embedding_type", "absolute") != "absolute")
    s.reject("position_embedding_type", "absolute is");
  if (s.flag("is_decoder", false))
    s.reject("is_decoder", "false is");
  // What modules.json says of the parts after the transformer.
  const std::string pooling = s.text("sentence.pooling", "mean");
  if (pooling != "mean" && pooling != "cls")
    s.reject("sentence.pooling", "mean and cls are");
  const bool normalizes = s.flag("sentence.normalize", false);

  const std::string root =
      m.hasTensor("bert.embeddings.LayerNorm.weight") ? "bert." : std::string();
  for (const char *unused :
       {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"})
    m.ignoreTensor(root + unused);
  m.call("embed", root + "embeddings.", [&](BlockBuilder &b) {
    Value x = b.embedding("word_embeddings", vocabulary, sizes.hidden);
    x = b.positionEmbedding("position_embeddings.weight", x, positions);
    // All tokens of a sentence are of the first type.
    x = b.addVector("token_type_embeddings.weight", x,
                    {.storedRows = types * sizes.hidden,
                     .fileShape = {types, sizes.hidden}});
    return b.layerNorm("LayerNorm", x, sizes.epsilon);
  });
  for (int64_t i = 0; i < sizes.layers; ++i)
    m.call("layer", fmt::format("{}encoder.layer.{}.", root, i),
           [&](BlockBuilder &b) {
             Value x = b.input;
             Value attended =
                 selfAttention(b, x, kLayer, sizes, /*bidirectional=*/true);
             x = b.layerNorm(kLayer.attentionNorm, b.add(x, attended),
                             sizes.epsilon);
             return b.layerNorm(kLayer.feedForwardNorm,
                                b.add(x, feedForward(b, x, kLayer, sizes)),
                                sizes.epsilon);
           });
  m.call("head", root, [&](BlockBuilder &b) {
    Value x = pooling == "mean" ? b.meanRows(b.input) : b.selectRows(b.input);
    return normalizes ? b.l2Norm(x) : x;
  });
  m.endProgram(
      {.name = "text",
       .contextLength = std::min(
           positions, s.size("sentence.max_seq_length", 1 << 24, positions)),
       .vocabulary = vocabulary,
       .task = "embed",
       .resultAtFirst = pooling == "cls"});
  return m.finish();
}

Architecture import::bert() {
  return {
      {"bert"},
      {{"token_embd", "embeddings.word_embeddings"},
       {"position_embd", "embeddings.position_embeddings"},
       {"token_types", "embeddings.token_type_embeddings"},
       {"token_embd_norm", "embeddings.LayerNorm"},
       {"blk.#.attn_q", "encoder.layer.#.attention.self.query"},
       {"blk.#.attn_k", "encoder.layer.#.attention.self.key"},
       {"blk.#.attn_v", "encoder.layer.#.attention.self.value"},
       {"blk.#.attn_output", "encoder.layer.#.attention.output.dense"},
       {"blk.#.attn_output_norm", "encoder.layer.#.attention.output.LayerNorm"},
       {"blk.#.ffn_up", "encoder.layer.#.intermediate.dense"},
       {"blk.#.ffn_down", "encoder.layer.#.output.dense"},
       {"blk.#.layer_output_norm", "encoder.layer.#.output.LayerNorm"}},
      build};
}
