//===- Generate.h - checkpoints with generated weights ----------*- C++ -*-===//
#pragma once

#include "isthmus/Import/Checkpoint.h"

namespace isthmus::import {

/// The shape of a Llama.
struct GeneratedShape {
  std::string name;
  int64_t layers, hidden, feedForward, heads, kvHeads, headDim, vocabulary;
  bool tied; ///< the head is the embedding
};

/// A checkpoint of that shape whose weights are generated from a seed: for
/// measuring shapes whose weights are not at hand.
Checkpoint generateCheckpoint(const GeneratedShape &shape, uint64_t seed);

} // namespace isthmus::import
