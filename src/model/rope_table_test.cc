#include "model/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>

namespace wels {
namespace {

TEST(RopeTable, LinearScalingDividesEveryFrequencyByTheFactor) {
  RopeConfig rope;
  rope.theta = 1e4;
  rope.scaling = RopeScaling::kLinear;
  rope.factor = 4;
  std::vector<double> freq = rope_inverse_frequencies(rope, 8);
  ASSERT_EQ(freq.size(), 4u);
  for (size_t i = 0; i < freq.size(); ++i)
    EXPECT_NEAR(freq[i], std::pow(1e4, -2.0 * static_cast<double>(i) / 8) / 4, 1e-15);
  EXPECT_EQ(rope_magnitude(rope, false), 1);
}

}  // namespace
}  // namespace wels
