#include "isthmus/runtime/Profile.h"

#include <gtest/gtest.h>

using namespace isthmus;
using namespace isthmus::rt;

namespace {
/// Two rows of sequence 0 at positions 4 and 5, one of sequence 1 at 9.
struct Rows {
  std::vector<int32_t> positions = {4, 5, 9}, sequence = {0, 0, 1};
  StepRows step{};
  Rows() {
    step.tokens = 3;
    step.outputs = 1;
    step.positions = positions.data();
    step.sequence = sequence.data();
  }
};
} // namespace

TEST(CostOf, CountsRowsOfTheLaunchsKind) {
  Rows rows;
  bundle::Launch launch;
  launch.mutable_cost()->set_bytes(100);
  launch.mutable_cost()->set_bytes_per_row(10);
  launch.mutable_cost()->set_ops_per_row(7);
  LaunchCost cost = costOf(launch, rows.step);
  EXPECT_EQ(cost.bytes, 130u);
  EXPECT_EQ(cost.ops, 21u);
  launch.set_rows(bundle::OUTPUTS);
  EXPECT_EQ(costOf(launch, rows.step).bytes, 110u);
  rows.step.outputs = 0; // nothing is launched then
  EXPECT_EQ(costOf(launch, rows.step).bytes, 0u);
}

TEST(CostOf, ReadsACacheOnceForAllRowsOfItsSequence) {
  Rows rows;
  bundle::Launch launch;
  launch.mutable_cost()->set_bytes_per_position(8);
  launch.mutable_cost()->set_ops_per_position(2);
  LaunchCost cost = costOf(launch, rows.step);
  EXPECT_EQ(cost.bytes, 8u * (6 + 10));
  EXPECT_EQ(cost.ops, 2u * (5 + 6 + 10));
  launch.mutable_cost()->set_bidirectional(true);
  const int32_t lengths[] = {6, 10};
  rows.step.lengths = lengths;
  EXPECT_EQ(costOf(launch, rows.step).ops, 2u * (6 + 6 + 10));
}

TEST(CostOf, IsZeroForBundlesThatDoNotSay) {
  Rows rows;
  LaunchCost cost = costOf(bundle::Launch(), rows.step);
  EXPECT_EQ(cost.bytes + cost.ops, 0u);
}
