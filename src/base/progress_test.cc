#include "base/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

namespace wels {
namespace {

TEST(Progress, NumbersHaveThreeDigitsAndAUnit) {
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(7), "7");
  EXPECT_EQ(human_count(0.5), "0.50");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(999.7), "1.00k");
  EXPECT_EQ(human_count(12345), "12.3k");
  EXPECT_EQ(human_count(999499), "999k");
  EXPECT_EQ(human_count(999500), "1.00M");
  EXPECT_EQ(human_count(14.8e12), "14.8T");
  EXPECT_EQ(human_count(-4.56e6), "-4.56M");
  EXPECT_EQ(human_count(std::nan("")), "?");
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(64.0 * (1 << 30)), "64.0 GiB");
  EXPECT_EQ(human_rate(12345, "tok"), "12.3k tok/s");
}

TEST(Progress, DurationsRoundIntoTheNextUnit) {
  EXPECT_EQ(human_duration(0.42), "0.42s");
  EXPECT_EQ(human_duration(7.46), "7.5s");
  EXPECT_EQ(human_duration(42), "42s");
  EXPECT_EQ(human_duration(59.6), "1m00s");
  EXPECT_EQ(human_duration(185), "3m05s");
  EXPECT_EQ(human_duration(3599.7), "1h00m");
  EXPECT_EQ(human_duration(3720), "1h02m");
  EXPECT_EQ(human_duration(23 * 3600 + 59 * 60 + 45), "1d00h");
  EXPECT_EQ(human_duration(51 * 3600), "2d03h");
  EXPECT_EQ(human_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(Progress, RateForgetsASlowStart) {
  RateMeter m(10);
  EXPECT_EQ(m.rate(), 0);
  EXPECT_TRUE(std::isinf(m.eta_s(100)));
  m.update(0, 0);
  double count = 0;
  for (int t = 1; t <= 20; ++t) m.update(t, count += 1);  // 1/s ...
  EXPECT_NEAR(m.rate(), 1, 1e-12);
  for (int t = 21; t <= 120; ++t) m.update(t, count += 50);  // ... then 50/s
  EXPECT_NEAR(m.rate(), 50, 0.01);
  EXPECT_NEAR(m.eta_s(count + 500), 10, 0.01);
  EXPECT_EQ(m.eta_s(count), 0);
}

TEST(Progress, SameMomentTwiceLosesNoCounts) {
  RateMeter m(10);
  m.update(0, 0);
  m.update(1, 10);
  m.update(1, 20);
  m.update(2, 20);
  EXPECT_NEAR(m.rate(), 10, 0.6);
}

TEST(Progress, CountsFromManyThreads) {
  Progress p("packing", 40000, "tok", /*quiet=*/true);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 5000; ++j) p.add(1);
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(p.done(), 20000);
  EXPECT_EQ(p.text().find("packing  50%  20.0k/40.0k tok"), 0u) << p.text();
}

TEST(Progress, UnknownTotalHasNoPercentage) {
  Progress p("reading", 0, "B", true);
  p.set(1234);
  EXPECT_EQ(p.text(), "reading  1.23k B");
}

TEST(Progress, WorkThatFailsLeavesNoLastLine) {
  ::testing::internal::CaptureStderr();
  try {
    Progress progress("work", 10, "things");
    progress.add(3);
    throw std::runtime_error("no");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Progress, PlainLinesWhereStderrIsNoTerminal) {
  ::testing::internal::CaptureStderr();
  {
    StatusLine line(1000);
    line.update("first");
    EXPECT_FALSE(line.due());
    line.update("too soon");
    line.finish("last");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "first\nlast\n");
}

}  // namespace
}  // namespace wels
