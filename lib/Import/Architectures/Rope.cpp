//===- Rope.cpp - what rotary settings mean -------------------------------===//
#include "Rope.h"

#include <cmath>

using namespace isthmus;
using namespace isthmus::import;

/// Long waves turn `factor` times slower, short ones as before, and those in
/// between something in between (Llama 3.1).
static float llama3Factor(const Settings &s, const std::string &group,
                          double frequency, double factor) {
  const double low = s.number(group + ".low_freq_factor", 1e-3, 1e3);
  const double high = s.number(group + ".high_freq_factor", 1e-3, 1e3);
  const auto original =
      double(s.size(group + ".original_max_position_embeddings"));
  const double waves = original * frequency / (2 * M_PI);
  if (waves < low)
    return float(factor);
  if (waves > high)
    return 1;
  const double smooth = (waves - low) / (high - low);
  return float(1 / ((1 - smooth) / factor + smooth));
}

Rope import::readRope(ModelBuilder &model, int64_t headDim,
                      double defaultTheta) {
  const Settings &s = model.settings();
  Rope rope{s.number("rope_theta", 1, 1e12, defaultTheta), {}};
  if (model.hasTensor("rope_freqs.weight")) {
    rope.factors = model.readTensor("rope_freqs.weight", headDim / 2);
    return rope;
  }
  for (const std::string group : {"rope_scaling", "rope_parameters"}) {
    rope.theta = s.number(group + ".rope_theta", 1, 1e12, rope.theta);
    const std::string key =
        group + (s.has(group + ".rope_type") ? ".rope_type" : ".type");
    const std::string type = s.text(key, "default");
    if (type == "default" || type == "none")
      continue;
    if (type != "linear" && type != "llama3")
      s.reject(key, "default, linear and llama3 are");
    const double factor = s.number(group + ".factor", 1, 1e4);
    for (int64_t i = 0; i < headDim / 2; ++i) {
      const double frequency =
          std::pow(rope.theta, -2.0 * double(i) / double(headDim));
      rope.factors.push_back(type == "linear"
                                 ? float(factor)
                                 : llama3Factor(s, group, frequency, factor));
    }
  }
  return rope;
}
