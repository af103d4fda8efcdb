//===- CLIP.cpp - CLIP: an image tower and a text tower -------------------===//
//
// arXiv:2103.00020. Two programs, 'image' and 'text', whose results have length
// one and can be compared.
//
//===----------------------------------------------------------------------===//
#include "Encoder.h"
#include "isthmus/Import/Architecture.h"

#include <cmath>
#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;

static constexpr LayerNames kLayer{"self_attn.q_proj", "self_attn.k_proj",
                                   "self_attn.v_proj", "self_attn.out_proj",
                                   "layer_norm1",      "mlp.fc1",
                                   "mlp.fc2",          "layer_norm2"};

static void buildImage(ModelBuilder &m, int64_t projection) {
  const Settings &s = m.settings();
  const std::string prefix = "vision_config.";
  const LayerSizes sizes =
      readLayerSizes(s, prefix, {768, 3072, 12, 12, 1e-5}, "quick_gelu");
  const ImageInput image =
      readImage(s, s.size(prefix + "image_size", 1 << 14, 224),
                s.size(prefix + "patch_size", 1 << 10, 32));
  const std::string root = "vision_model.";
  m.ignoreTensor(root + "embeddings.position_ids");
  m.takeValues(image.features());
  m.call("image_embed", root, [&](BlockBuilder &b) {
    Value x = patchEmbedding(
        b,
        {"embeddings.patch_embedding", "embeddings.class_embedding",
         "embeddings.position_embedding.weight", /*batched=*/false},
        image, sizes.hidden);
    return b.layerNorm("pre_layrnorm", x, sizes.epsilon);
  });
  for (int64_t i = 0; i < sizes.layers; ++i)
    m.call("image_layer", fmt::format("{}encoder.layers.{}.", root, i),
           [&](BlockBuilder &b) {
             return preNormLayer(b, kLayer, sizes, /*bidirectional=*/true);
           });
  m.call("image_head", root, [&](BlockBuilder &b) {
    Value x =
        b.layerNorm("post_layernorm", b.selectRows(b.input), sizes.epsilon);
    return b.l2Norm(b.linear("/visual_projection", x, projection));
  });
  m.endProgram({.name = "image",
                .contextLength = image.patches() + 1,
                .task = "embed",
                .resultAtFirst = true,
                .image = image});
}

static void buildText(ModelBuilder &m, int64_t projection) {
  const Settings &s = m.settings();
  const std::string prefix = "text_config.";
  const LayerSizes sizes =
      readLayerSizes(s, prefix, {512, 2048, 8, 12, 1e-5}, "quick_gelu");
  const int64_t context =
      s.size(prefix + "max_position_embeddings", 1 << 24, 77);
  const int64_t vocabulary = s.size(prefix + "vocab_size", 1 << 24, 49408);
  const std::string root = "text_model.";
  m.ignoreTensor(root + "embeddings.position_ids");
  m.call("text_embed", root + "embeddings.", [&](BlockBuilder &b) {
    return b.positionEmbedding(
        "position_embedding.weight",
        b.embedding("token_embedding", vocabulary, sizes.hidden), context);
  });
  for (int64_t i = 0; i < sizes.layers; ++i)
    m.call("text_layer", fmt::format("{}encoder.layers.{}.", root, i),
           [&](BlockBuilder &b) {
             return preNormLayer(b, kLayer, sizes, /*bidirectional=*/false);
           });
  // The last row is that of the end token, which the tokenizer adds.
  m.call("text_head", root, [&](BlockBuilder &b) {
    Value x =
        b.layerNorm("final_layer_norm", b.selectRows(b.input), sizes.epsilon);
    return b.l2Norm(b.linear("/text_projection", x, projection));
  });
  m.endProgram({.name = "text",
                .contextLength = context,
                .vocabulary = vocabulary,
                .task = "embed"});
}

static OwningOpRef<ModuleOp> build(ModelBuilder &m) {
  const int64_t projection = m.settings().size("projection_dim", 1 << 20, 512);
  buildImage(m, projection);
  buildText(m, projection);
  m.setSimilarityScale(std::exp(double(m.readTensor("logit_scale", {})[0])));
  return m.finish();
}

Architecture import::clip() { return {{"clip"}, {}, build}; }
