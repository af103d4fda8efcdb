//===- ViT.cpp - Vision Transformer ---------------------------------------===//
//
// arXiv:2010.11929. A checkpoint with a classifier gives the logits of its
// labels, one without the normalised row of the class token.
//
//===----------------------------------------------------------------------===//
#include "Encoder.h"
#include "isthmus/Import/Architecture.h"

#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;

static constexpr LayerNames kLayer{"attention.attention.query",
                                   "attention.attention.key",
                                   "attention.attention.value",
                                   "attention.output.dense",
                                   "layernorm_before",
                                   "intermediate.dense",
                                   "output.dense",
                                   "layernorm_after"};

/// The names of the classes, which config.json numbers.
static std::vector<std::string> readLabels(const Settings &s) {
  std::vector<std::string> labels;
  for (std::string name;
       s.has(name = fmt::format("id2label.{}", labels.size()));)
    labels.push_back(s.text(name, ""));
  return labels;
}

static OwningOpRef<ModuleOp> build(ModelBuilder &m) {
  const Settings &s = m.settings();
  const LayerSizes sizes =
      readLayerSizes(s, "", {768, 3072, 12, 12, 1e-12}, "gelu");
  if (s.size("num_channels", 1 << 10, 3) != 3)
    s.reject("num_channels", "3 is");
  const ImageInput image = readImage(s, s.size("image_size", 1 << 14, 224),
                                     s.size("patch_size", 1 << 10, 16));
  const bool classifies = m.hasTensor("classifier.weight");
  const std::string root =
      m.hasTensor("vit.layernorm.weight") ? "vit." : std::string();
  for (const char *unused : {"pooler.dense.weight", "pooler.dense.bias"})
    m.ignoreTensor(root + unused);

  m.takeValues(image.features());
  m.call("embed", root + "embeddings.", [&](BlockBuilder &b) {
    return patchEmbedding(b,
                          {"patch_embeddings.projection", "cls_token",
                           "position_embeddings", /*batched=*/true},
                          image, sizes.hidden);
  });
  for (int64_t i = 0; i < sizes.layers; ++i)
    m.call("layer", fmt::format("{}encoder.layer.{}.", root, i),
           [&](BlockBuilder &b) {
             return preNormLayer(b, kLayer, sizes, /*bidirectional=*/true);
           });
  ProgramSpec spec{.name = "image",
                   .contextLength = image.patches() + 1,
                   .task = classifies ? "classify" : "embed",
                   .resultAtFirst = true,
                   .image = image};
  if (classifies)
    spec.labels = readLabels(s);
  if (classifies && spec.labels.empty())
    s.reject("id2label", "a name for each class is");
  m.call("head", root, [&](BlockBuilder &b) {
    Value x = b.layerNorm("layernorm", b.selectRows(b.input), sizes.epsilon);
    return classifies ? b.linear("/classifier", x, int64_t(spec.labels.size()))
                      : x;
  });
  m.endProgram(spec);
  return m.finish();
}

Architecture import::vit() { return {{"vit"}, {}, build}; }
