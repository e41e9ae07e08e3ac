#include "rl/policy_objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <tuple>

#include "base/rng.h"
#include "rl/advantage.h"
#include "rl/algorithm.h"
#include "tests/golden.h"

namespace wels {
namespace {

using Values = std::vector<double>;
using Sizes = std::vector<int64_t>;

// --- advantages ---

TEST(Advantages, AreDeviationsFromTheGroupsMeanByTheChosenScale) {
  Values rewards = {1, 0, 0, 1, 2, 0, 0, 0};
  Values mean_free = {0.5, -0.5, -0.5, 0.5, 1.5, -0.5, -0.5, -0.5};
  EXPECT_EQ(group_advantages(rewards, Sizes{4, 4}, AdvantageScale::kNone), mean_free);
  double population = std::sqrt(0.75), sample = 1, batch = std::sqrt(0.5);
  Values by_group = group_advantages(rewards, Sizes{4, 4}, AdvantageScale::kGroup);
  Values by_sample = group_advantages(rewards, Sizes{4, 4}, AdvantageScale::kGroupSample);
  Values by_batch = group_advantages(rewards, Sizes{4, 4}, AdvantageScale::kBatch);
  EXPECT_DOUBLE_EQ(by_group[0], 1);
  EXPECT_DOUBLE_EQ(by_group[4], 1.5 / population);
  EXPECT_DOUBLE_EQ(by_sample[4], 1.5 / sample);
  EXPECT_DOUBLE_EQ(by_batch[1], -0.5 / batch);
}

TEST(Advantages, AGroupOfEqualRewardsGetsZerosWhateverTheirRounding) {
  for (AdvantageScale scale : {AdvantageScale::kNone, AdvantageScale::kGroup,
                               AdvantageScale::kGroupSample, AdvantageScale::kBatch}) {
    Values rewards = {0.1, 0.1, 0.1, 1, 0, 0.3};
    Values a = group_advantages(rewards, Sizes{3, 3}, scale);
    EXPECT_EQ(Values(a.begin(), a.begin() + 3), Values(3, 0.0));
    EXPECT_NE(a[3], 0);
    EXPECT_TRUE(std::isfinite(a[3]));
  }
  EXPECT_EQ(group_advantages(Values{0.7}, Sizes{1}, AdvantageScale::kGroupSample), Values{0.0});
  EXPECT_TRUE(group_advantages({}, {}, AdvantageScale::kBatch).empty());
}

TEST(PolicyObjective, TheNumbersInTheHeaderAreWhatItGives) {
  PolicyLoss p{.surrogate = Surrogate::kClipped, .mean = LossMean::kSequence, .beta = 0.1};
  Values old = {-2, -2}, logp = {-2 + std::log(1.5), -2 + std::log(0.9)};
  Values ref = {logp[0], logp[1] + std::log(2.0)}, dlogp(2);
  PolicySample s{.logp = logp, .old_logp = old, .ref_logp = ref, .advantage = 1};
  s.weight = token_weights(Sizes{2}, Sizes{1}, p.mean, 1)[0];
  PolicyStats stats;
  EXPECT_NEAR(policy_objective(p, s, dlogp, &stats), -1.0347, 5e-5);
  EXPECT_NEAR(dlogp[0], 0, 1e-12);
  EXPECT_NEAR(dlogp[1], -0.5, 1e-12);
  EXPECT_EQ(stats.clipped, 1);
  EXPECT_NEAR(stats.kl, 1 - std::log(2.0), 1e-12);
}

// R1's clip of 10: the lower bound, -9, is none for a ratio.
TEST(PolicyObjective, R1StopsRatiosAboveElevenAndNoneBelow) {
  PolicyLoss p = rl_algorithm("r1").loss;
  p.beta = 0;
  for (auto [r, a, slope] : {std::tuple(10.9, 1.0, 10.9),
                             {11.1, 1.0, 0.0},
                             {1e-9, 1.0, 1e-9},
                             {1e-9, -1.0, -1e-9},
                             {11.1, -1.0, -11.1}}) {
    Values old = {-30}, logp = {-30 + std::log(r)}, dlogp(1);
    PolicySample s{.logp = logp, .old_logp = old, .advantage = a, .weight = 1};
    policy_objective(p, s, dlogp, nullptr);
    EXPECT_NEAR(dlogp[0], -slope, 1e-12) << r << " " << a;
  }
}

// --- the golden reference data ---

struct Ragged {
  std::vector<Values> logp, old_logp, ref_logp;
  std::vector<std::vector<uint8_t>> mask;
  Values rewards;
  Sizes groups;
  std::vector<int64_t> tokens() const {
    std::vector<int64_t> out;
    for (const auto& m : mask) out.push_back(std::accumulate(m.begin(), m.end(), int64_t{0}));
    return out;
  }
};

double loss_of(const PolicyLoss& p, const Ragged& r, const Values& advantages,
               std::vector<Values>& dlogp, PolicyStats& stats) {
  Values weights = token_weights(r.tokens(), r.groups, p.mean, p.constant_length);
  double loss = 0;
  dlogp.clear();
  for (size_t i = 0; i < r.logp.size(); ++i) {
    dlogp.emplace_back(r.logp[i].size());
    PolicySample s{.logp = r.logp[i], .old_logp = r.old_logp[i], .mask = r.mask[i]};
    if (p.beta != 0) s.ref_logp = r.ref_logp[i];
    s.advantage = advantages[i];
    s.weight = weights[i];
    loss += policy_objective(p, s, dlogp.back(), &stats);
  }
  return loss;
}

PolicyLoss loss_named(const nlohmann::json& settings) {
  PolicyLoss p;
  p.surrogate = Surrogate::kClipped;
  p.clip_low = settings.at("clip_low");
  p.clip_high = settings.at("clip_high");
  p.beta = settings.at("beta");
  std::string mean = settings.at("aggregate");
  p.mean = mean == "sequence_mean_then_group_mean" ? LossMean::kSequence
           : mean == "constant_length"             ? LossMean::kConstant
                                                   : LossMean::kToken;
  EXPECT_EQ(p.mean == LossMean::kToken, mean == "token_mean_over_batch");
  if (settings.contains("constant_length")) p.constant_length = settings["constant_length"];
  return p;
}

AdvantageScale scale_named(const std::string& text) {
  if (text.find("ddof 0") != std::string::npos) return AdvantageScale::kGroup;
  if (text.find("ddof 1") != std::string::npos) return AdvantageScale::kGroupSample;
  EXPECT_EQ(text.find('/'), std::string::npos) << text;
  return AdvantageScale::kNone;
}

void check_variants(const nlohmann::json& data, double tolerance) {
  Ragged r;
  for (const auto& g : data["groups"]) {
    r.groups.push_back(static_cast<int64_t>(g["rewards"].size()));
    for (size_t i = 0; i < g["rewards"].size(); ++i) {
      r.rewards.push_back(g["rewards"][i]);
      r.logp.push_back(g["logprobs"][i]);
      r.old_logp.push_back(g["old_logprobs"][i]);
      r.ref_logp.push_back(g["ref_logprobs"][i]);
      r.mask.push_back(g["mask"][i]);
    }
  }
  ASSERT_FALSE(data["variants"].empty());
  for (const auto& v : data["variants"]) {
    SCOPED_TRACE(v["name"].get<std::string>());
    PolicyLoss p = loss_named(v["settings"]);
    Values a = group_advantages(r.rewards, r.groups, scale_named(v["settings"]["advantage"]));
    std::vector<Values> dlogp;
    PolicyStats stats;
    EXPECT_NEAR(loss_of(p, r, a, dlogp, stats), v["loss"].get<double>(), tolerance);
    EXPECT_NEAR(stats.clipped / stats.tokens, v["clip_fraction"].get<double>(), tolerance);
    if (v.contains("mean_kl_k3")) {
      EXPECT_NEAR(stats.kl / stats.tokens, v["mean_kl_k3"].get<double>(), tolerance);
    }
    size_t i = 0;
    for (size_t g = 0; g < r.groups.size(); ++g) {
      for (size_t k = 0; k < static_cast<size_t>(r.groups[g]); ++k, ++i) {
        EXPECT_NEAR(a[i], v["advantages"][g][k].get<double>(), tolerance);
        EXPECT_LE(max_difference(dlogp[i], v["grad_logprobs"][g][k].get<Values>()), tolerance);
      }
    }
  }
}

TEST(PolicyObjective, EveryVariantOfTheGoldenDataHasItsAdvantagesLossAndGradient) {
  std::vector<std::string> files = golden_json_files("rl");
  SKIP_WITHOUT_CASES(files, "rl/*.json");
  double tolerance = read_json(golden_folder() + "/rl/case.json").at("tolerance").at("float64");
  for (const std::string& file : files) {
    SCOPED_TRACE(file);
    check_variants(read_json(file), tolerance);
  }
}

// --- gradients of the others by differences ---

Ragged random_completions(uint64_t seed) {
  Rng rng(seed);
  Ragged r;
  for (size_t i = 0; i < 6; ++i) {
    size_t n = 1 + static_cast<size_t>(rng.below(7));
    r.logp.emplace_back();
    r.old_logp.emplace_back();
    r.ref_logp.emplace_back();
    r.mask.emplace_back();
    for (size_t t = 0; t < n; ++t) {
      double x = -2 * rng.uniform() - 0.05;
      r.logp.back().push_back(x);
      r.old_logp.back().push_back(x + 0.4 * rng.normal());
      r.ref_logp.back().push_back(x + 0.5 * rng.normal());
      r.mask.back().push_back(t == 0 || rng.uniform() < 0.8);
    }
    r.rewards.push_back(rng.uniform());
  }
  return r;
}

double one_loss(const PolicyLoss& p, const Ragged& r, size_t i, const Values& logp, double a,
                Values* dlogp = nullptr) {
  Values grad(logp.size());
  Values sampled = r.ref_logp[i];  // any third set of values
  PolicySample s{.logp = logp,
                 .old_logp = r.old_logp[i],
                 .ref_logp = r.ref_logp[i],
                 .sampled_logp = sampled,
                 .mask = r.mask[i],
                 .advantage = a,
                 .weight = 0.3};
  double loss = policy_objective(p, s, grad, nullptr);
  if (dlogp) *dlogp = grad;
  return loss;
}

// |gradient - differences| over all tokens of all completions.
double worst_gradient_error(const PolicyLoss& p, const Ragged& r) {
  constexpr double kStep = 1e-6;
  Values advantages = group_advantages(r.rewards, Sizes{3, 3}, AdvantageScale::kGroup);
  double worst = 0;
  for (size_t i = 0; i < r.logp.size(); ++i) {
    Values dlogp, x = r.logp[i];
    one_loss(p, r, i, x, advantages[i], &dlogp);
    for (size_t t = 0; t < x.size(); ++t) {
      Values up = x, down = x;
      up[t] += kStep;
      down[t] -= kStep;
      double slope =
          (one_loss(p, r, i, up, advantages[i]) - one_loss(p, r, i, down, advantages[i])) /
          (2 * kStep);
      worst = std::max(worst, std::fabs(slope - dlogp[t]));
    }
  }
  return worst;
}

TEST(PolicyObjective, GradientsOfEverySurrogateKlAndCorrectionEqualDifferences) {
  Ragged r = random_completions(11);
  for (Surrogate surrogate : {Surrogate::kPlain, Surrogate::kClipped, Surrogate::kSequence}) {
    for (Correction c : {Correction::kNone, Correction::kTruncate, Correction::kMask,
                         Correction::kTruncateSequence, Correction::kMaskSequence}) {
      for (int kl = 0; kl < 3; ++kl) {
        PolicyLoss p{.surrogate = surrogate,
                     .clip_low = 0.2,
                     .clip_high = 0.28,
                     .correction = c,
                     .correction_cap = 1.3};
        p.beta = kl > 0 ? 0.07 : 0;
        p.unbiased_kl = kl == 2;
        EXPECT_LT(worst_gradient_error(p, r), 1e-8)
            << static_cast<int>(surrogate) << " " << static_cast<int>(c) << " " << kl;
      }
    }
  }
}

TEST(PolicyObjective, CispoGivesEveryTokenItsCappedRatioTimesTheAdvantage) {
  Ragged r = random_completions(12);
  PolicyLoss p{.surrogate = Surrogate::kCispo, .clip_high = 1.1};
  bool capped = false;
  for (size_t i = 0; i < r.logp.size(); ++i) {
    Values dlogp;
    one_loss(p, r, i, r.logp[i], -0.8, &dlogp);
    for (size_t t = 0; t < dlogp.size(); ++t) {
      double ratio = std::exp(r.logp[i][t] - r.old_logp[i][t]);
      capped |= ratio > 1.1;
      double expected = r.mask[i][t] ? 0.3 * 0.8 * std::min(ratio, 1.1) : 0.0;
      EXPECT_DOUBLE_EQ(dlogp[t], expected);
    }
  }
  EXPECT_TRUE(capped);
}

TEST(PolicyObjective, OnPolicyEverySurrogateHasThePolicyGradient) {
  Ragged r = random_completions(13);
  r.old_logp = r.logp;
  for (Surrogate surrogate :
       {Surrogate::kPlain, Surrogate::kClipped, Surrogate::kSequence, Surrogate::kCispo}) {
    PolicyLoss p{.surrogate = surrogate, .clip_high = surrogate == Surrogate::kCispo ? 5 : 0.2};
    for (size_t i = 0; i < r.logp.size(); ++i) {
      Values dlogp;
      one_loss(p, r, i, r.logp[i], 0.6, &dlogp);
      for (size_t t = 0; t < dlogp.size(); ++t)
        EXPECT_DOUBLE_EQ(dlogp[t], r.mask[i][t] ? -0.3 * 0.6 : 0.0);
    }
  }
}

TEST(PolicyObjective, TheUnbiasedKlHasTheGradientOfTheDivergenceItself) {
  // A token with three values: E_{x~old}[gradient] must be that of KL(π || ref) in every logp.
  Values pi = {0.5, 0.3, 0.2}, ref = {0.2, 0.2, 0.6}, old = {0.4, 0.4, 0.2};
  PolicyLoss p{.surrogate = Surrogate::kPlain, .beta = 1, .unbiased_kl = true};
  for (size_t x = 0; x < pi.size(); ++x) {
    Values logp = {std::log(pi[x])}, old_logp = {std::log(old[x])}, ref_logp = {std::log(ref[x])},
           dlogp = {0};
    PolicySample s{.logp = logp, .old_logp = old_logp, .ref_logp = ref_logp, .weight = 1};
    policy_objective(p, s, dlogp, nullptr);
    // d KL / d log π(x) along ∂π(x) = π(x)·∂log π(x), up to the constant that sums to zero.
    EXPECT_NEAR(old[x] * dlogp[0], pi[x] * std::log(pi[x] / ref[x]), 1e-12);
  }
}

TEST(PolicyObjective, StaleCompletionsWithNegativeAdvantageAreMaskedButKeepTheirKl) {
  Values logp = {-3, -3}, old = {-1, -1}, ref = {-2, -2}, dlogp(2);
  PolicyLoss p{.surrogate = Surrogate::kClipped, .beta = 0.1, .stale_delta = 1.5};
  PolicySample s{.logp = logp, .old_logp = old, .ref_logp = ref, .advantage = -1, .weight = 0.5};
  PolicyStats stats;
  policy_objective(p, s, dlogp, &stats);
  EXPECT_EQ(stats.stale, 1);
  EXPECT_DOUBLE_EQ(dlogp[0], 0.5 * 0.1 * (1 - std::exp(1.0)));
  // Neither a positive advantage nor a smaller drift is masked.
  for (auto [a, delta] : {std::pair{1.0, 1.5}, std::pair{-1.0, 2.5}}) {
    p.stale_delta = delta;
    s.advantage = a;
    PolicyStats kept;
    policy_objective(p, s, dlogp, &kept);
    EXPECT_EQ(kept.stale, 0);
  }
}

TEST(PolicyObjective, CorrectionsTruncateOrMaskTheRatioOfTrainerToSampler) {
  Values logp = {-1, -1}, old = logp, sampled = {-2, -0.9}, dlogp(2);
  PolicySample s{
      .logp = logp, .old_logp = old, .sampled_logp = sampled, .advantage = 1, .weight = 1};
  PolicyLoss p{.surrogate = Surrogate::kPlain, .correction_cap = 2};
  double first = std::exp(1.0), second = std::exp(old[1] - sampled[1]), both = std::exp(0.9);
  auto gradient = [&](Correction c) {
    p.correction = c;
    policy_objective(p, s, dlogp, nullptr);
    return Values{-dlogp[0], -dlogp[1]};
  };
  EXPECT_GT(first, 2);
  EXPECT_EQ(gradient(Correction::kTruncate), (Values{2, second}));
  EXPECT_EQ(gradient(Correction::kMask), (Values{0, second}));
  EXPECT_EQ(gradient(Correction::kTruncateSequence), (Values{2, 2}));
  EXPECT_EQ(gradient(Correction::kMaskSequence), (Values{0, 0}));
  p.correction_cap = 3;
  for (double c : gradient(Correction::kMaskSequence)) EXPECT_NEAR(c, both, 1e-12);
}

TEST(TokenWeights, SumToTheMeansTheyAreNamedFor) {
  Sizes tokens = {4, 1, 0, 3}, one = {4}, two = {1, 3};
  EXPECT_EQ(token_weights(tokens, one, LossMean::kSequence, 1),
            (Values{1.0 / 16, 1.0 / 4, 0, 1.0 / 12}));
  EXPECT_EQ(token_weights(tokens, two, LossMean::kSequence, 1),
            (Values{1.0 / 8, 1.0 / 6, 0, 1.0 / 18}));
  EXPECT_EQ(token_weights(tokens, two, LossMean::kConstant, 10),
            (Values{1.0 / 20, 1.0 / 60, 0, 1.0 / 60}));
  EXPECT_EQ(token_weights(tokens, two, LossMean::kToken, 1), (Values{0.125, 0.125, 0, 0.125}));
}

}  // namespace
}  // namespace wels
