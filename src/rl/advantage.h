// Group advantages: how much better than its siblings an answer was, which GRPO takes in place of a
// critic (DeepSeekMath, arXiv 2402.03300, eq. 3; R1, Nature 645:633, eq. 3).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace wels {

// What rewards minus their group's mean are divided by. The papers do not say which of the two
// standard deviations of a group they mean.
enum class AdvantageScale {
  kNone,         // 1: Dr.GRPO (arXiv 2503.20783)
  kGroup,        // the group's standard deviation, ddof 0
  kGroupSample,  // the same, ddof 1 (common libraries)
  kBatch,        // the standard deviation of all rewards, ddof 0: Lite-PPO (arXiv 2508.08221)
};

// Whether a group's rewards differ: one that has none teaches nothing.
bool has_variance(std::span<const double> rewards);

// Advantages of rewards, group after group: sizes, in order, say how many belong to each (their sum
// is the count, CHECK). No epsilon in the divisor: a group without variance gets zeros.
std::vector<double> group_advantages(std::span<const double> rewards,
                                     std::span<const int64_t> sizes, AdvantageScale scale);

}  // namespace wels
