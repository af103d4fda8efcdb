#include "isthmus/Plan/Pipeline.h"

#include <gtest/gtest.h>

using namespace isthmus::plan;

namespace {
/// `layers` equal layers of 100 bytes; the first and the last share a table.
Problem makeProblem(size_t layers, std::vector<uint64_t> budgets) {
  Problem p;
  for (size_t i = 0; i < layers; ++i) {
    Layer layer{100, 10, 200, 8, 5, {i}};
    p.weightSizes.push_back(100);
    p.layers.push_back(layer);
  }
  p.weightSizes.push_back(1000);
  p.layers.front().weightIds.push_back(layers);
  p.layers.back().weightIds.push_back(layers);
  for (size_t i = 0; i < budgets.size(); ++i) {
    p.devices.push_back({"d" + std::to_string(i), budgets[i], 1e3, 1e6});
    if (i > 0)
      p.links.push_back({i - 1, i, 0.01, 1e4});
  }
  return p;
}

/// The least time of any contiguous split over two devices, by trying all.
double bruteForce(const Problem &p) {
  double best = 1e300;
  size_t n = p.layers.size();
  for (size_t cut = 0; cut <= n; ++cut) {
    bool fits =
        (cut == 0 || memoryOf(p, 0, cut) <= p.devices[0].memoryBytes) &&
        (cut == n || memoryOf(p, cut, n - cut) <= p.devices[1].memoryBytes);
    if (!fits)
      continue;
    double time = secondsOf(p, p.devices[0], 0, cut) +
                  secondsOf(p, p.devices[1], cut, n - cut);
    if (cut != 0 && cut != n)
      time += 0.01 + 8.0 / 1e4;
    best = std::min(best, time);
  }
  return best;
}
} // namespace

TEST(Pipeline, OneDeviceWhenItFits) {
  Result r = splitPipeline(makeProblem(6, {5000, 5000}));
  ASSERT_EQ(r.runs.size(), 1u);
  EXPECT_EQ(r.runs[0].count, 6u);
}

TEST(Pipeline, SharedWeightsCountOncePerDevice) {
  Problem p = makeProblem(2, {5000});
  EXPECT_EQ(memoryOf(p, 0, 2), 100u + 100 + 1000 + 20 + 5);
  EXPECT_EQ(memoryOf(p, 0, 1), 100u + 1000 + 10 + 5);
}

TEST(Pipeline, SplitsWhenOneBudgetIsTooSmall) {
  Problem p = makeProblem(6, {1500, 1500});
  Result r = splitPipeline(p);
  ASSERT_EQ(r.runs.size(), 2u) << r.reason;
  EXPECT_EQ(r.runs[0].count + r.runs[1].count, 6u);
  for (size_t i = 0; i < 2; ++i)
    EXPECT_LE(r.memory[i], 1500u);
}

TEST(Pipeline, AgreesWithBruteForce) {
  for (uint64_t a = 1100; a <= 2200; a += 70)
    for (double speed : {0.3, 1.0, 4.0}) {
      Problem p = makeProblem(7, {a, 1600});
      p.devices[1].bandwidth *= speed;
      Result r = splitPipeline(p);
      double expected = bruteForce(p);
      if (r.runs.empty())
        EXPECT_GT(expected, 1e299);
      else
        EXPECT_NEAR(r.secondsPerToken, expected, 1e-12);
    }
}

TEST(Pipeline, InfeasibleNamesWhatIsMissing) {
  Result r = splitPipeline(makeProblem(6, {1200, 1200}));
  EXPECT_TRUE(r.runs.empty());
  EXPECT_NE(r.reason.find("MB"), std::string::npos) << r.reason;
  Result block = splitPipeline(makeProblem(6, {900, 900}));
  EXPECT_NE(block.reason.find("block 0 alone needs"), std::string::npos)
      << block.reason;
}

TEST(Pipeline, NeedsALinkBetweenDevices) {
  Problem p = makeProblem(6, {1500, 1500});
  p.links.clear();
  EXPECT_TRUE(splitPipeline(p).runs.empty());
}
