//===- Sampler.cpp - chooses the next token from logits -------------------===//
#include "isthmus/runtime/Sampler.h"

#include <algorithm>
#include <cmath>

using namespace isthmus::rt;

int32_t isthmus::rt::argmax(std::span<const float> logits) {
  // The maximum first (vectorises), then where it stands.
  float largest = logits[0];
  for (float logit : logits)
    largest = logit > largest ? logit : largest;
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] == largest)
      return int32_t(i);
  return 0; // NaN everywhere
}

double Sampler::logProbability(std::span<const float> logits, int32_t token) {
  double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits)
    sum += std::exp(double(logit) - largest);
  return double(logits[size_t(token)]) - largest - std::log(sum);
}

/// A number in [0, 1) from seed and position (SplitMix64).
static double uniform(uint64_t seed, int64_t position) {
  uint64_t z = seed + uint64_t(position + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return double(z >> 11) * 0x1p-53;
}

int32_t Sampler::sample(std::span<const float> logits,
                        const SamplingParams &params, int64_t position) {
  if (!(params.temperature > 0))
    return argmax(logits);
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i)
    candidates.push_back({logits[i], int32_t(i)});
  auto before = [](const Candidate &a, const Candidate &b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  size_t kept = candidates.size();
  if (params.topK > 0)
    kept = std::min(kept, size_t(params.topK));
  std::partial_sort(candidates.begin(), candidates.begin() + ptrdiff_t(kept),
                    candidates.end(), before);
  candidates.resize(kept);
  const double largest = candidates[0].logit;
  auto weight = [&](const Candidate &c) {
    return std::exp((double(c.logit) - largest) / double(params.temperature));
  };
  double total = 0;
  for (const Candidate &c : candidates)
    total += weight(c);
  if (params.topP < 1.0f) {
    double sum = 0;
    size_t count = 0;
    while (count < candidates.size() && sum < double(params.topP) * total)
      sum += weight(candidates[count++]);
    candidates.resize(std::max<size_t>(count, 1));
    total = 0;
    for (const Candidate &c : candidates)
      total += weight(c);
  }
  double target = uniform(params.seed, position) * total;
  for (const Candidate &c : candidates)
    if ((target -= weight(c)) < 0)
      return c.token;
  return candidates.back().token;
}
