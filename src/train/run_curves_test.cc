#include "train/run_curves.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace wels {
namespace {

TEST(RunCurves, PointsStayFewAndTheirMeansAndRangesAreThoseOfTheValues) {
  for (int64_t n : {1, 63, 64, 65, 127, 1000, 4097}) {
    Curve c(64);
    for (int64_t i = 1; i <= n; ++i) c.add(i, i == 40 ? 1e6 : static_cast<double>(i));
    auto points = c.points();
    EXPECT_LE(points.size(), 65u) << n;
    EXPECT_GE(points.size(), std::min<size_t>(static_cast<size_t>(n), 32)) << n;
    double most = 0;
    for (const Curve::Point& p : points) {
      EXPECT_LE(p.low, p.mean);
      EXPECT_GE(p.high, p.mean);
      most = std::max(most, p.high);
    }
    EXPECT_EQ(most, n >= 40 ? 1e6 : static_cast<double>(n));
    EXPECT_EQ(c.least(), 1);
    EXPECT_EQ(c.last(), static_cast<double>(n == 40 ? 1e6 : n));
  }
}

TEST(RunCurves, AStepThatComesTwiceCountsAsItWasLast) {
  Curve c(8);
  for (double v : {5.0, 7.0}) c.add(1, v);
  c.add(2, NAN);
  auto points = c.points();
  ASSERT_EQ(points.size(), 2u);
  EXPECT_EQ(points[0].mean, 7);
  EXPECT_TRUE(std::isnan(points[1].mean));
}

TEST(RunCurves, OfOtherThingsEveryNthStaysAndTheLast) {
  for (int64_t n : {1, 9, 10, 11, 57, 1000}) {
    Kept<std::vector<int64_t>> k(10);
    for (int64_t i = 0; i < n; ++i) k.add(i, {i});
    const auto& items = k.items();
    for (const auto& [step, value] : items) EXPECT_EQ(value, std::vector{step}) << n;
    EXPECT_LE(items.size(), 10u);
    EXPECT_EQ(items.front().first, 0);
    EXPECT_EQ(items.back().first, n - 1);
    for (size_t i = 2; i + 1 < items.size(); ++i)
      EXPECT_EQ(items[i].first - items[i - 1].first, items[1].first) << n;
  }
}

TEST(RunCurves, LinesOfALongRunAreFewAndInOrder) {
  RunCurves curves(100);
  for (int64_t s = 1; s <= 10'000; ++s) {
    StepMetrics m;
    m.step = s;
    m.add(metric::kLoss, 2.0);
    if (s % 100 == 0) m.add(metric::kValLoss, static_cast<double>(s));
    m.add(metric::kLoad, MetricTable{1, 2, {1, 1}});
    curves.add(std::move(m));
  }
  auto lines = curves.lines();
  EXPECT_LE(lines.size(), 500u);
  int64_t before = 0, losses = 0;
  for (const StepMetrics& m : lines) {
    EXPECT_GT(m.step, before);
    before = m.step;
    if (std::isfinite(m.scalar(metric::kLoss))) ++losses;
  }
  EXPECT_GE(losses, 50);
  EXPECT_LE(losses, 101);
  EXPECT_EQ(lines.back().tables.at(0).second.values, (std::vector<double>{1, 1}));
}

}  // namespace
}  // namespace wels
