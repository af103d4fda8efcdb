//===- Rope.h - what rotary settings mean -----------------------*- C++ -*-===//
#pragma once

#include "isthmus/Import/ModelBuilder.h"

namespace isthmus::import {

/// theta, and what each pair's frequency is divided by (empty: by nothing).
struct Rope {
  double theta;
  std::vector<float> factors;
};

/// Reads rope_theta and the scaling of Hugging Face's config.json
/// (rope_scaling, or rope_parameters since transformers 5): linear and llama3.
/// A GGUF file has the factors as the tensor rope_freqs.weight. Throws
/// rt::Error for other scalings.
Rope readRope(ModelBuilder &model, int64_t headDim, double defaultTheta);

} // namespace isthmus::import
