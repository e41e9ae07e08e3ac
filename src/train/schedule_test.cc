// Schedules against values worked out by hand.
#include "train/schedule.h"

#include <gtest/gtest.h>

namespace wels {
namespace {

TEST(Schedule, V3WarmsUpHoldsFallsAlongACosineAndHoldsAgain) {
  Schedule s{.kind = Schedule::Kind::kV3,
             .peak = 2.2e-4,
             .final_ratio = 0.1,
             .steps = 1000,
             .warmup = 20,
             .stable = 0.5,
             .decay_end = 0.9};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 1.1e-5);  // 1/20 of the peak
  EXPECT_DOUBLE_EQ(learning_rate(s, 9), 1.1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 19), 2.2e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 20), 2.2e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 499), 2.2e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 500), 2.2e-4);
  EXPECT_NEAR(learning_rate(s, 600), 2.2e-5 + 1.98e-4 * 0.8535533905932737,
              1e-18);  // (1 + cos(π/4)) / 2
  EXPECT_NEAR(learning_rate(s, 700), 2.2e-5 + 1.98e-4 * 0.5, 1e-18);
  EXPECT_NEAR(learning_rate(s, 800), 2.2e-5 + 1.98e-4 * 0.14644660940672627, 1e-18);
  EXPECT_DOUBLE_EQ(learning_rate(s, 900), 2.2e-5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 999), 2.2e-5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 5000), 2.2e-5);
}

TEST(Schedule, V3NeverFallsBeforeTheWarmUpIsOver) {
  Schedule s{.kind = Schedule::Kind::kV3, .peak = 1.0, .steps = 100, .warmup = 40, .stable = 0.1};
  for (int64_t t = 1; t < 40; ++t) EXPECT_GT(learning_rate(s, t), learning_rate(s, t - 1)) << t;
  EXPECT_DOUBLE_EQ(learning_rate(s, 40), 1.0);
  for (int64_t t = 41; t < 100; ++t) EXPECT_LT(learning_rate(s, t), learning_rate(s, t - 1)) << t;
}

TEST(Schedule, WsdHoldsAndThenFallsLinearlyToZero) {
  Schedule s{
      .kind = Schedule::Kind::kWsd, .peak = 1e-3, .steps = 200, .warmup = 10, .wsd_decay = 0.25};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 9), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 149), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 150), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 175), 5e-4);
  EXPECT_NEAR(learning_rate(s, 199), 2e-5, 1e-18);
  EXPECT_EQ(learning_rate(s, 200), 0);
  EXPECT_EQ(learning_rate(s, 1000), 0);
}

TEST(Schedule, WsdDoesNotFallBeforeTheWarmUpIsOver) {
  Schedule s{.kind = Schedule::Kind::kWsd, .peak = 1.0, .steps = 100, .warmup = 90};
  EXPECT_DOUBLE_EQ(learning_rate(s, 89), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 90), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 95), 0.5);
  EXPECT_EQ(learning_rate(s, 100), 0);
}

TEST(Schedule, TheBatchGrowsLinearlyToItsFullSize) {
  Schedule s{.steps = 100, .batch_start = 0.2, .ramp_share = 0.5};
  EXPECT_EQ(batch_sequences(s, 0, 40), 8);
  EXPECT_EQ(batch_sequences(s, 25, 40), 24);
  EXPECT_EQ(batch_sequences(s, 49, 40), 39);  // floor(0.984 · 40)
  EXPECT_EQ(batch_sequences(s, 50, 40), 40);
  EXPECT_EQ(batch_sequences(s, 99, 40), 40);
  EXPECT_EQ(batch_sequences(s, 0, 3), 1);  // never empty
  s.batch_start = 1.0;
  EXPECT_EQ(batch_sequences(s, 0, 40), 40);
}

}  // namespace
}  // namespace wels
