#include "isthmus/runtime/Sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

using namespace isthmus::rt;

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  std::vector<float> logits = {0, 3, 3, 1};
  EXPECT_EQ(argmax(logits), 1);
  Sampler sampler;
  EXPECT_EQ(sampler.sample(logits, {0.0f, 1, 0, 0}, 0), 1);
}

TEST(Sampler, RepeatsItselfForSeedAndPosition) {
  std::vector<float> logits(50);
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i] = float(i % 7);
  Sampler a, b;
  for (int64_t position = 0; position < 20; ++position)
    EXPECT_EQ(a.sample(logits, {1, 1, 0, 42}, position),
              b.sample(logits, {1, 1, 0, 42}, position));
}

TEST(Sampler, TopKAndTopPLimitTheChoice) {
  std::vector<float> logits = {5, 4, 3, 2, 1};
  Sampler sampler;
  for (int64_t position = 0; position < 200; ++position) {
    EXPECT_LT(sampler.sample(logits, {1, 1, 2, 1}, position), 2);
    EXPECT_EQ(sampler.sample(logits, {1, 0.1f, 0, 1}, position), 0);
  }
}

TEST(Sampler, FollowsTheDistribution) {
  std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  Sampler sampler;
  std::map<int32_t, int> counts;
  constexpr int kDraws = 20000;
  for (int64_t position = 0; position < kDraws; ++position)
    counts[sampler.sample(logits, {1, 1, 0, 9}, position)]++;
  EXPECT_NEAR(counts[0] / double(kDraws), 0.5, 0.02);
  EXPECT_NEAR(counts[1] / double(kDraws), 0.3, 0.02);
}

TEST(Sampler, LogProbabilitiesSumToOne) {
  std::vector<float> logits = {100, 99, -3};
  double sum = 0;
  for (int32_t i = 0; i < 3; ++i)
    sum += std::exp(Sampler::logProbability(logits, i));
  EXPECT_NEAR(sum, 1.0, 1e-12);
}
