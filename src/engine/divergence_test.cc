// A divergence by hand, of a model from itself, and of two models against plain loops.
#include "engine/divergence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "backend/registry.h"
#include "base/error.h"
#include "base/rng.h"
#include "model/tiny_config_test.h"

namespace wels {
namespace {

ModelConfig tiny(int64_t vocab) {
  ModelConfig c = tiny_dense_config(vocab);
  c.max_position_embeddings = 512;
  return c;
}

std::vector<int32_t> some_ids(int64_t n, uint64_t seed, uint64_t vocab) {
  Rng rng(seed);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(vocab));
  return ids;
}

TEST(Divergence, OfThreeLogitsIsWhatTheFormulaGives) {
  // p = 1/2, 1/4, 1/4; q = 1/4, 1/4, 1/2, the logits shifted by 3 and -100.
  float ln2 = std::log(2.0f);
  std::vector<float> p{3 + ln2, 3, 3}, q{-100, -100, -100 + ln2};
  LogitDivergence d = compare_logits(p.data(), q.data(), 3, 2);
  EXPECT_NEAR(d.kl, 0.25 * std::log(2.0), 1e-5);
  EXPECT_NEAR(d.reference_logp, std::log(0.25), 1e-6);
  EXPECT_NEAR(d.logp, std::log(0.5), 1e-5);
  EXPECT_FALSE(d.same_top);
  LogitDivergence shifted = compare_logits(p.data(), std::vector<float>{ln2, 0, 0}.data(), 3, 0);
  EXPECT_NEAR(shifted.kl, 0, 1e-6);
  EXPECT_GE(shifted.kl, 0);
  EXPECT_TRUE(shifted.same_top);
}

TEST(Divergence, OfAModelFromItselfIsExactlyNothing) {
  for (const std::string& name : test_devices()) {
    std::unique_ptr<Device> dev = make_device(name);
    Model model(tiny(211));
    model.init(DType::kF32, 3, false);
    Divergence d({*dev, model, DType::kF32, "a"}, {*dev, model, DType::kF32, "b"}, true);
    d.add(some_ids(150, 1, 211));
    d.add(some_ids(2, 2, 211));
    DivergenceReport r = d.report();
    EXPECT_EQ(r.tokens, 150);
    EXPECT_EQ(r.kl.value, 0) << name;
    EXPECT_EQ(r.kl_max, 0) << name;
    EXPECT_EQ(r.same_top.value, 1);
    EXPECT_EQ(r.ratio.value, 1);
    EXPECT_EQ(r.logp_difference.standard_error, 0);
    EXPECT_EQ(r.rms_probability, 0);
    EXPECT_GT(r.perplexity, 1);
    EXPECT_EQ(r.perplexity, r.reference_perplexity);
  }
}

// Log-probabilities of every token after each of ids[0 .. n - 1).
std::vector<std::vector<double>> log_softmax_rows(Device& dev, Model& model,
                                                  const std::vector<int32_t>& ids) {
  Pool pool;
  Ctx ctx{.dev = dev, .pool = pool, .tape = nullptr, .dtype = DType::kF32};
  Batch batch;
  batch.append(std::vector<int32_t>(ids.begin(), ids.end() - 1));
  Var z = model.logits(ctx, model.hidden(ctx, batch, {}));
  std::vector<std::vector<double>> out;
  for (int64_t i = 0; i < z.t.rows; ++i) {
    std::vector<double> row(z.t.row<float>(i), z.t.row<float>(i) + z.t.cols);
    double sum = 0;
    for (double x : row) sum += std::exp(x);
    for (double& x : row) x -= std::log(sum);
    out.push_back(row);
  }
  return out;
}

TEST(Divergence, OfTwoModelsIsThatOfPlainLoops) {
  std::unique_ptr<Device> dev = make_device("cpu");
  Model reference(tiny(97)), model(tiny(97));
  reference.init(DType::kF32, 3, false);
  model.init(DType::kF32, 4, false);
  // Both halves of the way: the reference's weights with noise.
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec&) {
    const Weight* from = nullptr;
    visit_weights(reference.config(), reference.weights(), [&](Weight& r, const WeightSpec&) {
      if (r.name == w.name) from = &r;
    });
    float *to = w.value[0].row<float>(0), *base = from->value[0].row<float>(0);
    for (int64_t i = 0; i < w.rows * w.cols; ++i) to[i] = base[i] + 0.1f * (to[i] - base[i]);
    ++w.version;
  });
  Divergence with_kl({*dev, reference, DType::kF32, "a"}, {*dev, model, DType::kF32, "b"}, true);
  Divergence without({*dev, reference, DType::kF32, "a"}, {*dev, model, DType::kF32, "b"}, false);
  std::vector<double> kls, differences, squares;
  double nats_p = 0, nats_q = 0, same = 0;
  for (int64_t n : {2, 65, 66, 140}) {
    std::vector<int32_t> ids = some_ids(n, static_cast<uint64_t>(n), 97);
    with_kl.add(ids);
    without.add(ids);
    auto p = log_softmax_rows(*dev, reference, ids), q = log_softmax_rows(*dev, model, ids);
    for (size_t i = 0; i < p.size(); ++i) {
      double kl = 0;
      for (size_t t = 0; t < 97; ++t) kl += std::exp(p[i][t]) * (p[i][t] - q[i][t]);
      kls.push_back(kl);
      size_t target = static_cast<size_t>(ids[i + 1]);
      nats_p -= p[i][target];
      nats_q -= q[i][target];
      differences.push_back(q[i][target] - p[i][target]);
      squares.push_back(std::pow(std::exp(q[i][target]) - std::exp(p[i][target]), 2));
      same += std::max_element(p[i].begin(), p[i].end()) - p[i].begin() ==
              std::max_element(q[i].begin(), q[i].end()) - q[i].begin();
    }
  }
  double n = static_cast<double>(kls.size());
  auto mean = [&](const std::vector<double>& v) {
    double sum = 0;
    for (double x : v) sum += x;
    return sum / n;
  };
  auto error = [&](const std::vector<double>& v) {
    double sum = 0;
    for (double x : v) sum += (x - mean(v)) * (x - mean(v));
    return std::sqrt(sum / (n - 1) / n);
  };
  DivergenceReport r = with_kl.report();
  EXPECT_EQ(r.tokens, static_cast<int64_t>(kls.size()));
  EXPECT_GT(mean(kls), 0.01);
  EXPECT_NEAR(r.kl.value, mean(kls), 1e-6);
  EXPECT_NEAR(r.kl.standard_error, error(kls), 1e-6);
  EXPECT_NEAR(r.logp_difference.value, mean(differences), 1e-6);
  EXPECT_NEAR(r.logp_difference.standard_error, error(differences), 1e-6);
  EXPECT_NEAR(r.perplexity, std::exp(nats_q / n), 1e-4 * r.perplexity);
  EXPECT_NEAR(r.reference_perplexity, std::exp(nats_p / n), 1e-4 * r.reference_perplexity);
  EXPECT_NEAR(r.ratio.value, r.perplexity / r.reference_perplexity, 1e-9);
  EXPECT_NEAR(r.same_top.value, same / n, 1e-12);
  EXPECT_LT(r.same_top.value, 1);
  EXPECT_NEAR(r.rms_probability, std::sqrt(mean(squares)), 1e-6);
  std::sort(kls.begin(), kls.end());
  EXPECT_NEAR(r.kl_median, kls[(kls.size() - 1 + 1) / 2], 1e-5);
  EXPECT_NEAR(r.kl_max, kls.back(), 1e-5);
  EXPECT_NEAR(r.kl_99, kls[static_cast<size_t>(0.99 * (n - 1) + 0.5)], 1e-5);
  DivergenceReport fast = without.report();
  EXPECT_NEAR(fast.perplexity, r.perplexity, 1e-4 * r.perplexity);
  EXPECT_NEAR(fast.logp_difference.standard_error, r.logp_difference.standard_error, 1e-6);
}

TEST(Divergence, OfACacheInEightBitsIsSmallAndOfOneInTheActivationsTypeNothing) {
  ModelConfig c = tiny(97);
  c.architecture = Architecture::kDeepseekV2;
  c.attention = AttentionKind::kMla;
  c.num_key_value_heads = 2;
  c.kv_lora_rank = 40;
  c.qk_nope_head_dim = 16;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 16;
  c.attention_bias = false;
  for (const ModelConfig& cfg : {c, tiny(97)}) {
    std::unique_ptr<Device> dev = make_device("cpu");
    Model model(cfg);
    model.init(DType::kF32, 3, false);
    std::map<DType, double> kl;
    for (DType type : {DType::kF32, DType::kBF16, DType::kQ8_0}) {
      Divergence d({*dev, model, DType::kF32, "a"}, {*dev, model, DType::kF32, "b", type}, true);
      d.add(some_ids(300, 1, 97));
      kl[type] = d.report().kl.value;
    }
    // Over a cache of its own type the model may run in other pieces, but not with other values.
    EXPECT_LT(kl[DType::kF32], 1e-7);
    EXPECT_GT(kl[DType::kBF16], 1e-9);
    EXPECT_GT(kl[DType::kQ8_0], 1e-7);
    EXPECT_LT(kl[DType::kQ8_0], 1e-3);
  }
}

TEST(Divergence, DamagedWeightsAreNamed) {
  std::unique_ptr<Device> dev = make_device("cpu");
  Model good(tiny(97)), bad(tiny(97));
  good.init(DType::kF32, 3, false);
  bad.init(DType::kF32, 3, false);
  bad.head().value[0].row<float>(5)[1] = NAN;
  for (bool kl : {true, false}) {
    Divergence d({*dev, good, DType::kF32, "good"}, {*dev, bad, DType::kF32, "bad"}, kl);
    try {
      d.add(some_ids(9, 1, 97));
      FAIL() << "accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("bad: gives log-probabilities"), std::string::npos)
          << e.what();
    }
  }
}

}  // namespace
}  // namespace wels
