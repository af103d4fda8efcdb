//===- Sampler.h - chooses the next token from logits -----------*- C++ -*-===//
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace isthmus::rt {

struct SamplingParams {
  float temperature = 1.0f; ///< 0: the most likely token
  float topP = 1.0f;        ///< smallest set with this probability; 1: all
  int32_t topK = 0;         ///< this many most likely tokens; 0: all
  uint64_t seed = 0;
};

/// Chooses a token. The random number depends on the seed and the position
/// only, so that a request repeats itself in any batch.
class Sampler {
public:
  int32_t sample(std::span<const float> logits, const SamplingParams &params,
                 int64_t position);
  /// Natural logarithm of the probability of `token`.
  static double logProbability(std::span<const float> logits, int32_t token);

private:
  struct Candidate {
    float logit;
    int32_t token;
  };
  std::vector<Candidate> candidates; ///< reused between calls
};

/// The token of the largest logit; the lowest id among equals.
int32_t argmax(std::span<const float> logits);

} // namespace isthmus::rt
