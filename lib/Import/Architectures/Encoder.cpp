//===- Encoder.cpp - what descriptions of encoders share ------------------===//
#include "Encoder.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;

/// The activation function that a setting names as Hugging Face does.
static fm::Function readFunction(const Settings &settings,
                                 const std::string &name,
                                 const std::string &fallback) {
  const std::string function = settings.text(name, fallback);
  if (function == "gelu")
    return fm::Function::GeluErf;
  if (function == "gelu_new" || function == "gelu_pytorch_tanh")
    return fm::Function::GeluTanh;
  if (function == "quick_gelu")
    return fm::Function::QuickGelu;
  if (function == "silu" || function == "swish")
    return fm::Function::Silu;
  settings.reject(name, "gelu, gelu_new, quick_gelu and silu are");
}

/// A number of pixels that stands as `name` or, for both sides, under it.
static int64_t readPixels(const Settings &s, const std::string &name,
                          int64_t fallback) {
  constexpr int64_t kLargest = 1 << 14;
  if (s.has(name))
    return s.size(name, kLargest);
  const int64_t height = s.size(name + ".height", kLargest, fallback);
  if (s.size(name + ".width", kLargest, fallback) != height)
    s.reject(name + ".width", "a square is");
  return height;
}

ImageInput import::readImage(const Settings &s, int64_t size, int64_t patch) {
  const std::string file = "preprocessor_config.";
  ImageInput image{size, patch};
  if (size % patch != 0)
    s.reject("patch_size", "a divisor of the image's size is");
  if (!s.flag(file + "do_resize", true))
    s.reject(file + "do_resize", "true is");
  const std::string edge = file + "size.shortest_edge";
  const bool crops = s.flag(file + "do_center_crop", false);
  if (crops) {
    // An old file gives the edge as a plain number.
    image.shortestEdge = s.has(edge) ? s.size(edge, 1 << 14)
                                     : readPixels(s, file + "size", size);
    if (readPixels(s, file + "crop_size", size) != size)
      s.reject(file + "crop_size", "the size that the model takes is");
    if (image.shortestEdge < size)
      s.reject(file + "size", "no smaller size than the crop's is");
  } else if (s.has(edge) || readPixels(s, file + "size", size) != size) {
    s.reject(s.has(edge) ? edge : file + "size",
             "the size that the model takes, or a crop to it, is");
  }
  image.filter = s.integer(file + "resample", crops ? 3 : 2);
  if (image.filter < 0 || image.filter > 3)
    s.reject(file + "resample", "0 (nearest), 1 (Lanczos), 2 (bilinear) and 3 "
                                "(bicubic) are");
  image.scale = s.flag(file + "do_rescale", true)
                    ? s.number(file + "rescale_factor", 1e-6, 1, 1.0 / 255)
                    : 1.0;
  if (s.flag(file + "do_normalize", true)) {
    image.mean = s.numbers(file + "image_mean", 3, {0.5, 0.5, 0.5});
    image.deviation = s.numbers(file + "image_std", 3, {0.5, 0.5, 0.5});
    for (double deviation : image.deviation)
      if (!(deviation > 0))
        s.reject(file + "image_std", "three positive numbers are");
  }
  return image;
}

LayerSizes import::readLayerSizes(const Settings &s, const std::string &prefix,
                                  const LayerSizes &fallback,
                                  const std::string &function) {
  LayerSizes sizes = fallback;
  sizes.hidden = s.size(prefix + "hidden_size", 1 << 20, fallback.hidden);
  sizes.feedForward =
      s.size(prefix + "intermediate_size", 1 << 22, fallback.feedForward);
  sizes.heads = s.size(prefix + "num_attention_heads", 1 << 12, fallback.heads);
  sizes.layers = s.size(prefix + "num_hidden_layers", 1000, fallback.layers);
  sizes.epsilon =
      s.number(prefix + "layer_norm_eps", 1e-13, 0.1, fallback.epsilon);
  sizes.function = readFunction(s, prefix + "hidden_act", function);
  if (sizes.hidden % sizes.heads != 0)
    s.reject(prefix + "num_attention_heads", "a divisor of the hidden size is");
  return sizes;
}

Value import::selfAttention(BlockBuilder &b, Value x, const LayerNames &names,
                            const LayerSizes &sizes, bool bidirectional) {
  Value q = b.linear(names.query, x, sizes.hidden);
  Value k = b.linear(names.key, x, sizes.hidden);
  Value v = b.linear(names.value, x, sizes.hidden);
  const double scale =
      1 / std::sqrt(double(sizes.hidden) / double(sizes.heads));
  Value attended = b.attention(q, k, v,
                               {.heads = sizes.heads,
                                .kvHeads = sizes.heads,
                                .scale = scale,
                                .bidirectional = bidirectional});
  return b.linear(names.output, attended, sizes.hidden);
}

Value import::feedForward(BlockBuilder &b, Value x, const LayerNames &names,
                          const LayerSizes &sizes) {
  Value inner = b.linear(names.up, x, sizes.feedForward);
  return b.linear(names.down, b.activate(sizes.function, inner), sizes.hidden);
}

Value import::preNormLayer(BlockBuilder &b, const LayerNames &names,
                           const LayerSizes &sizes, bool bidirectional) {
  Value x = b.input;
  Value normed = b.layerNorm(names.attentionNorm, x, sizes.epsilon);
  x = b.add(x, selfAttention(b, normed, names, sizes, bidirectional));
  normed = b.layerNorm(names.feedForwardNorm, x, sizes.epsilon);
  return b.add(x, feedForward(b, normed, names, sizes));
}

Value import::patchEmbedding(BlockBuilder &b, const PatchNames &names,
                             const ImageInput &image, int64_t hidden) {
  const int64_t positions = image.patches() + 1;
  // A convolution whose filters do not overlap is a product of patches.
  WeightForm filter{.fileShape = {hidden, 3, image.patch, image.patch}};
  WeightForm token, table;
  if (names.batched) {
    token.fileShape = {1, 1, hidden};
    table.fileShape = {1, positions, hidden};
  }
  Value x = b.linear(names.patches, b.input, hidden, filter);
  x = b.classToken(names.classToken, x, token);
  return b.positionEmbedding(names.positions, x, positions, table);
}
