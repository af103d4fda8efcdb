//===- Encoder.h - what descriptions of encoders share ----------*- C++ -*-===//
#pragma once

#include "isthmus/Import/ModelBuilder.h"

namespace isthmus::import {

/// How the checkpoint's preprocessor_config.json treats images, for a model of
/// `size` pixels in patches of `patch`.
ImageInput readImage(const Settings &settings, int64_t size, int64_t patch);

/// Sizes of the layers of a transformer.
struct LayerSizes {
  int64_t hidden, feedForward, heads, layers;
  double epsilon;
  fm::Function function = fm::Function::GeluErf;
};

/// Reads them under `prefix`; missing ones are those of `fallback`, and the
/// function is `function`.
LayerSizes readLayerSizes(const Settings &settings, const std::string &prefix,
                          const LayerSizes &fallback,
                          const std::string &function);

/// Names of a layer's weights, relative to it.
struct LayerNames {
  const char *query, *key, *value, *output;
  const char *attentionNorm;
  const char *up, *down;
  const char *feedForwardNorm;
};

/// Self-attention with its output product.
mlir::Value selfAttention(BlockBuilder &b, mlir::Value x,
                          const LayerNames &names, const LayerSizes &sizes,
                          bool bidirectional);

/// The feed-forward products around the activation.
mlir::Value feedForward(BlockBuilder &b, mlir::Value x, const LayerNames &names,
                        const LayerSizes &sizes);

/// A layer that normalises before each of its halves, as ViT and CLIP do.
mlir::Value preNormLayer(BlockBuilder &b, const LayerNames &names,
                         const LayerSizes &sizes, bool bidirectional);

/// Rows of patches become the rows of a model: the products with the filter
/// `patches`, a class token, and positions.
struct PatchNames {
  const char *patches, *classToken, *positions;
  /// Shapes of class token and positions in the file, if they have more
  /// dimensions than one and two.
  bool batched;
};
mlir::Value patchEmbedding(BlockBuilder &b, const PatchNames &names,
                           const ImageInput &image, int64_t hidden);

} // namespace isthmus::import
