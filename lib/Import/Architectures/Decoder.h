//===- Decoder.h - what descriptions of decoders share ----------*- C++ -*-===//
#pragma once

#include "isthmus/Import/Architecture.h"

namespace isthmus::import {

/// theta, and what each pair's frequency is divided by (empty: by nothing).
struct Rope {
  double theta;
  std::vector<float> factors;
};

/// Where a configuration says how layers of one kind turn.
struct RopeSettings {
  std::string theta;
  double defaultTheta;
  /// Objects with rope_theta and the scaling, of older and of newer files.
  std::vector<std::string> groups;
};

/// Reads theta and the scaling: linear or llama3. Throws rt::Error for others,
/// and where two groups scale.
Rope readRope(const Settings &s, int64_t headDim, const RopeSettings &names);

/// GGUF's names of a decoder's tensors: `own`, and those of Llama for which
/// there is no own one.
std::vector<Architecture::TensorName>
decoderNames(std::vector<Architecture::TensorName> own = {});

/// Calls the last block: norm, and the head, which may be the embedding.
void callHead(ModelBuilder &model, int64_t vocabulary, double epsilon,
              const WeightForm &norm = {});

} // namespace isthmus::import
