#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace wels {
namespace {

std::vector<float> logs(std::initializer_list<double> p) {
  std::vector<float> z;
  for (double x : p) z.push_back(static_cast<float>(std::log(x)));
  return z;
}

// Shares of the ids in 20,000 draws.
std::vector<double> shares(const std::vector<float>& z, const SamplingParams& p) {
  std::vector<double> out(z.size());
  Rng rng(7);
  for (int i = 0; i < 20000; ++i) {
    std::vector<float> copy = z;
    out[static_cast<size_t>(sample(copy, {}, p, rng).id)] += 1.0 / 20000;
  }
  return out;
}

SamplingParams plain() {
  SamplingParams p;
  p.temperature = 1;
  p.top_p = 1;
  return p;
}

TEST(Sample, DrawsByTheSoftmaxAndReportsItsLogProbability) {
  std::vector<double> s = shares(logs({0.5, 0.3, 0.2}), plain());
  EXPECT_NEAR(s[0], 0.5, 0.015);
  EXPECT_NEAR(s[2], 0.2, 0.015);
  std::vector<float> z = logs({0.5, 0.3, 0.2});
  Rng rng(1);
  SampledToken t = sample(z, {}, plain(), rng);
  EXPECT_NEAR(t.logp, std::log(t.id == 0 ? 0.5 : t.id == 1 ? 0.3 : 0.2), 1e-6);
}

TEST(Sample, TemperatureZeroTakesTheLargestAndTheLowerIdOfATie) {
  SamplingParams p = plain();
  p.temperature = 0;
  Rng rng(1);
  std::vector<float> z{1, 3, 3, -INFINITY};
  EXPECT_EQ(sample(z, {}, p, rng).id, 1);
}

TEST(Sample, FiltersKeepWhatTheySay) {
  SamplingParams p = plain();
  p.top_k = 2;
  EXPECT_EQ(shares(logs({0.5, 0.3, 0.2}), p)[2], 0);
  p = plain();
  p.top_p = 0.7;  // 0.5 is not enough, 0.5 + 0.3 is
  std::vector<double> s = shares(logs({0.5, 0.3, 0.2}), p);
  EXPECT_EQ(s[2], 0);
  EXPECT_NEAR(s[0], 0.625, 0.015);
  p = plain();
  p.min_p = 0.5;  // 0.2 / 0.5 < 0.5
  EXPECT_EQ(shares(logs({0.5, 0.3, 0.2}), p)[2], 0);
}

TEST(Sample, PenaltiesAndBiasChangeLogitsOfSeenTokens) {
  SamplingParams p = plain();
  p.temperature = 0;
  p.repetition_penalty = 4;
  Rng rng(1);
  std::vector<int32_t> history{0};
  std::vector<float> z{3, 1};
  EXPECT_EQ(sample(z, history, p, rng).id, 1);
  p = plain();
  p.temperature = 0;
  p.logit_bias[1] = 100;
  z = {3, 1};
  EXPECT_EQ(sample(z, {}, p, rng).id, 1);
}

TEST(Sample, RefusesLogitsWithoutAFiniteValueAndBadParameters) {
  std::vector<float> z{NAN, -INFINITY};
  Rng rng(1);
  EXPECT_THROW(sample(z, {}, plain(), rng), Error);
  SamplingParams p;
  p.top_p = 0;
  EXPECT_THROW(p.validate(), Error);
}

}  // namespace
}  // namespace wels
