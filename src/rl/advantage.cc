#include "rl/advantage.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace wels {
namespace {

double mean(std::span<const double> x) {
  double sum = 0;
  for (double v : x) sum += v;
  return sum / static_cast<double>(x.size());
}

double deviation(std::span<const double> x, double ddof) {
  double m = mean(x), sum = 0;
  for (double v : x) sum += (v - m) * (v - m);
  return std::sqrt(sum / (static_cast<double>(x.size()) - ddof));
}

}  // namespace

// By comparison: the mean of equal numbers need not be that number to the last bit.
bool has_variance(std::span<const double> rewards) {
  return std::any_of(rewards.begin(), rewards.end(), [&](double r) { return r != rewards[0]; });
}

std::vector<double> group_advantages(std::span<const double> rewards,
                                     std::span<const int64_t> sizes, AdvantageScale scale) {
  std::vector<double> out(rewards.size(), 0.0);
  double batch = scale == AdvantageScale::kBatch && !rewards.empty() ? deviation(rewards, 0) : 1.0;
  size_t begin = 0;
  for (int64_t size : sizes) {
    size_t g = static_cast<size_t>(size), first = begin;
    CHECK(begin + g <= rewards.size());
    std::span<const double> group = rewards.subspan(first, g);
    begin += g;
    if (!has_variance(group)) continue;
    double m = mean(group), by = batch;
    if (scale == AdvantageScale::kGroup) by = deviation(group, 0);
    if (scale == AdvantageScale::kGroupSample) by = deviation(group, 1);
    for (size_t i = 0; i < g; ++i) out[first + i] = (group[i] - m) / by;
  }
  CHECK(begin == rewards.size());
  return out;
}

}  // namespace wels
