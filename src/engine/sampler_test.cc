#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"

namespace wels {
namespace {

std::vector<float> logs(std::initializer_list<double> p) {
  std::vector<float> z;
  for (double x : p) z.push_back(static_cast<float>(std::log(x)));
  return z;
}

SampledToken draw(std::vector<float> z, const SamplingParams& p, SamplePlace place = {}) {
  return sample(z, place, p);
}

// Shares of the ids in 20,000 draws with seeds of their own.
std::vector<double> shares(const std::vector<float>& z, SamplingParams p, SamplePlace place = {}) {
  std::vector<double> out(z.size());
  for (int i = 0; i < 20000; ++i) {
    p.seed = static_cast<uint64_t>(i);
    out[static_cast<size_t>(draw(z, p, place).id)] += 1.0 / 20000;
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
  SampledToken t = draw(logs({0.5, 0.3, 0.2}), plain());
  EXPECT_NEAR(t.logp, std::log(t.id == 0 ? 0.5 : t.id == 1 ? 0.3 : 0.2), 1e-6);
}

TEST(Sample, DrawsOfTheSameSeedAtDifferentPlacesAreIndependent) {
  // Chi-square of 10,000 successive pairs of draws against the product of their probabilities.
  const double prob[] = {0.5, 0.3, 0.2};
  std::vector<float> z = logs({0.5, 0.3, 0.2});
  std::vector<int32_t> history(20000);
  double count[3][3] = {}, chi = 0;
  for (size_t i = 0; i + 1 < history.size(); i += 2) {
    int32_t a = draw(z, plain(), {.history = std::span(history).first(i)}).id;
    int32_t b = draw(z, plain(), {.history = std::span(history).first(i + 1)}).id;
    ++count[static_cast<size_t>(a)][static_cast<size_t>(b)];
  }
  for (int a = 0; a < 3; ++a) {
    for (int b = 0; b < 3; ++b) {
      double want = 10000 * prob[a] * prob[b];
      chi += (count[a][b] - want) * (count[a][b] - want) / want;
    }
  }
  EXPECT_LT(chi, 26.1);  // 99.9 % of chi-square with 8 degrees of freedom
}

TEST(Sample, TheSameSeedAtTheSamePlaceDrawsAlikeFromSimilarDistributions) {
  // Total variation 0.1: plain independent draws would agree in less than half of the cases.
  std::vector<float> target = logs({0.5, 0.3, 0.2}), draft = logs({0.4, 0.35, 0.25});
  SamplingParams p = plain();
  int same = 0;
  for (int i = 0; i < 5000; ++i) {
    p.seed = static_cast<uint64_t>(i);
    same += draw(target, p).id == draw(draft, p).id;
  }
  EXPECT_GT(same, 5000 * (1 - 0.1) / (1 + 0.1) * 0.97);
}

TEST(Sample, TemperatureZeroTakesTheLargestAndTheLowerIdOfATie) {
  SamplingParams p = plain();
  p.temperature = 0;
  EXPECT_EQ(draw({1, 3, 3, -INFINITY}, p).id, 1);
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

TEST(Sample, TypicalSamplingDropsTheTooProbableAndTheTooRare) {
  // Entropy 1.22 nats; surprises 0.69, 1.61, 1.61, 2.30: the two of 0.2 are nearest to it.
  SamplingParams p = plain();
  p.typical_p = 0.35;
  std::vector<double> s = shares(logs({0.5, 0.2, 0.2, 0.1}), p);
  EXPECT_EQ(s[0], 0);
  EXPECT_EQ(s[3], 0);
  EXPECT_NEAR(s[1], 0.5, 0.015);
}

TEST(Sample, PenaltiesAndBiasChangeLogitsOfSeenTokens) {
  SamplingParams p = plain();
  p.temperature = 0;
  p.repetition_penalty = 4;
  std::vector<int32_t> history{0};
  EXPECT_EQ(draw({3, 1}, p, {.history = history}).id, 1);
  p = plain();
  p.temperature = 0;
  p.logit_bias[1] = 100;
  EXPECT_EQ(draw({3, 1}, p).id, 1);
}

TEST(Sample, TheMaskComesBeforeTheFilters) {
  // Without its most probable tokens, top-k 1 leaves token 65.
  std::vector<float> z(70, 0);
  z[3] = 9;
  z[64] = 8;
  z[65] = 7;
  SamplingParams p = plain();
  p.top_k = 1;
  std::vector<uint64_t> mask{~uint64_t{1 << 3}, ~uint64_t{0}};
  std::vector<int32_t> never{64};
  EXPECT_EQ(draw(z, p, {.mask = mask, .never = never}).id, 65);
  EXPECT_EQ(draw(z, p, {.mask = mask}).id, 64);
  mask = {0};  // words that are missing allow nothing
  EXPECT_THROW(draw(z, p, {.mask = mask}), Error);
}

TEST(Sample, ReportsThePlainSoftmaxWhateverFiltersSay) {
  SamplingParams p = plain();
  p.temperature = 0.3;
  p.logit_bias[0] = -100;
  p.top_logprobs = 2;
  SampledToken t = draw(logs({0.5, 0.3, 0.2}), p);
  ASSERT_EQ(t.top.size(), 2u);
  EXPECT_EQ(t.top[0].first, 0);
  EXPECT_NEAR(t.top[0].second, std::log(0.5), 1e-6);
  EXPECT_NEAR(t.top[1].second, std::log(0.3), 1e-6);
  EXPECT_NEAR(t.plain_logp, std::log(t.id == 1 ? 0.3 : 0.2), 1e-6);
  p.top_logprobs = 9;  // more than there are
  EXPECT_EQ(draw(logs({0.5, 0.3, 0.2}), p).top.size(), 3u);
}

TEST(Sample, RefusesLogitsThatAreNoNumbersAndBadParameters) {
  EXPECT_THROW(draw({NAN, 1}, plain()), Error);
  EXPECT_THROW(draw({INFINITY, 1}, plain()), Error);
  EXPECT_THROW(draw({-INFINITY, -INFINITY}, plain()), Error);
  SamplingParams p;
  p.top_p = 0;
  EXPECT_THROW(p.validate(), Error);
  p = {};
  p.typical_p = 0;
  EXPECT_THROW(p.validate(), Error);
  using P = SamplingParams;
  for (auto [member, name] : {std::pair{&P::repetition_penalty, "repetition_penalty"},
                              {&P::presence_penalty, "presence_penalty"},
                              {&P::frequency_penalty, "frequency_penalty"}}) {
    for (double bad : {INFINITY, -INFINITY, NAN}) {
      p = {};
      p.*member = bad;
      try {
        p.validate();
        ADD_FAILURE() << name << " " << bad;
      } catch (const Error& e) {
        EXPECT_EQ(e.where(), name);
      }
    }
  }
}

}  // namespace
}  // namespace wels
