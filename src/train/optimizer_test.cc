// AdamW, Muon, the average of weights and QK-Clip on a tiny model, against their definitions
// computed here in double. (AdamW over three real steps: tests/golden_train_test.cc.)
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "backend/registry.h"
#include "base/rng.h"
#include "train/ema.h"
#include "train/presets.h"
#include "train/qk_clip.h"
#include "train/trainer.h"

namespace wels {
namespace {

double get(const Tensor& t, int64_t i) {
  return t.dtype == DType::kF64 ? t.row<double>(0)[i] : static_cast<double>(t.row<float>(0)[i]);
}
void set(const Tensor& t, int64_t i, double v) {
  if (t.dtype == DType::kF64)
    t.row<double>(0)[i] = v;
  else
    t.row<float>(0)[i] = static_cast<float>(v);
}
std::vector<double> values(const Tensor& t) {
  std::vector<double> out;
  for (int64_t i = 0; i < t.size(); ++i) out.push_back(get(t, i));
  return out;
}

// Singular values, descending, by one-sided Jacobi rotations.
std::vector<double> singular_values(std::vector<double> a, int64_t rows, int64_t cols) {
  if (rows < cols) {  // rotate the fewer vectors
    std::vector<double> t(a.size());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c)
        t[static_cast<size_t>(c * rows + r)] = a[static_cast<size_t>(r * cols + c)];
    }
    a = std::move(t);
    std::swap(rows, cols);
  }
  auto at = [&](int64_t r, int64_t c) -> double& { return a[static_cast<size_t>(r * cols + c)]; };
  for (int sweep = 0; sweep < 30; ++sweep) {
    for (int64_t p = 0; p < cols; ++p) {
      for (int64_t q = p + 1; q < cols; ++q) {
        double pp = 0, qq = 0, pq = 0;
        for (int64_t r = 0; r < rows; ++r)
          pp += at(r, p) * at(r, p), qq += at(r, q) * at(r, q), pq += at(r, p) * at(r, q);
        if (std::fabs(pq) <= 1e-15 * std::sqrt(pp * qq)) continue;
        double zeta = (qq - pp) / (2 * pq),
               t = (zeta >= 0 ? 1 : -1) / (std::fabs(zeta) + std::hypot(1, zeta));
        double c = 1 / std::hypot(1, t), s = c * t;
        for (int64_t r = 0; r < rows; ++r) {
          double x = at(r, p), y = at(r, q);
          at(r, p) = c * x - s * y;
          at(r, q) = s * x + c * y;
        }
      }
    }
  }
  std::vector<double> out;
  for (int64_t c = 0; c < cols; ++c) {
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) sum += at(r, c) * at(r, c);
    out.push_back(std::sqrt(sum));
  }
  std::sort(out.rbegin(), out.rend());
  return out;
}

class OptimizerTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    dev_ = make_device(GetParam());
    dtype_ = GetParam() == "ref:double" ? DType::kF64 : DType::kF32;
    tolerance_ = dtype_ == DType::kF64 ? 1e-6 : 1e-5;  // the parameters of a step are f32
    make_model(16);
  }
  void make_model(int64_t q_rank) {
    ModelConfig c = preset("nano").model;
    c.vocab_size = 24;
    c.hidden_size = 32;
    c.num_hidden_layers = 2;
    c.intermediate_size = 40;
    c.num_attention_heads = c.num_key_value_heads = 3;
    c.q_lora_rank = q_rank;
    c.kv_lora_rank = 8;
    c.qk_nope_head_dim = 6;
    c.qk_rope_head_dim = 4;
    c.v_head_dim = 5;
    c.n_routed_experts = 4;
    c.moe_intermediate_size = 12;
    model_ = std::make_unique<Model>(c);
    model_->init(dtype_, 3, true);
  }
  // Random gradients for step `step`, alike on all devices.
  void fill_gradients(int step, double scale = 1) {
    each([&](Weight& w, const WeightSpec&) {
      for (size_t e = 0; e < w.grad.size(); ++e) {
        Rng rng(hash_name(w.name), e * 100 + static_cast<uint64_t>(step));
        for (int64_t i = 0; i < w.grad[e].size(); ++i) set(w.grad[e], i, scale * rng.normal());
      }
      w.fresh_grad = false;
    });
  }
  template <class F>
  void each(F&& f) {
    visit_weights(model_->config(), model_->weights(), f);
  }
  std::map<std::string, std::vector<std::vector<double>>> snapshot() {
    std::map<std::string, std::vector<std::vector<double>>> out;
    each([&](Weight& w, const WeightSpec&) {
      for (const Tensor& t : w.value) out[w.name].push_back(values(t));
    });
    return out;
  }
  Weight& named(const std::string& end) {
    Weight* found = nullptr;
    each([&](Weight& w, const WeightSpec&) {
      if (w.name.ends_with(end) && !found) found = &w;
    });
    EXPECT_NE(found, nullptr) << end;
    return *found;
  }

  std::unique_ptr<Device> dev_;
  DType dtype_ = DType::kF32;
  double tolerance_ = 0;
  std::unique_ptr<Model> model_;
};

TEST_P(OptimizerTest, ClippingDividesByTheNorm) {
  EXPECT_EQ(clip_coefficient(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(clip_coefficient(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_DOUBLE_EQ(clip_coefficient(4.0, 2.0), 2.0 / (4.0 + 1e-6));
  EXPECT_EQ(clip_coefficient(4.0, 0), 1.0);
}

TEST_P(OptimizerTest, TheGradientNormIsOverAllWeightsAndShowsNan) {
  Optimizer opt(*dev_, *model_, {});
  fill_gradients(0);
  double sum = 0;
  each([&](Weight& w, const WeightSpec&) {
    for (const Tensor& g : w.grad) {
      for (double x : values(g)) sum += x * x;
    }
  });
  EXPECT_NEAR(opt.gradient_norm(), std::sqrt(sum), 1e-6 * std::sqrt(sum));
  Weight& last = named("lm_head.weight");
  set(last.grad[0], last.grad[0].size() - 1, NAN);
  EXPECT_TRUE(std::isnan(opt.gradient_norm()));
  // What no gradient reached counts as zero, whatever its memory holds.
  last.fresh_grad = true;
  EXPECT_TRUE(std::isfinite(opt.gradient_norm()));
}

TEST_P(OptimizerTest, AdamWFollowsItsDefinitionOverThreeSteps) {
  Optimizer opt(*dev_, *model_, {});
  struct State {
    std::vector<double> m, v;
  };
  auto want = snapshot();
  std::map<std::string, std::vector<State>> state;
  const double lr[] = {1e-3, 2e-3, 5e-4};
  for (int step = 0; step < 3; ++step) {
    fill_gradients(step, 0.01);
    opt.step(lr[step], 0.5);
    double t = step + 1;
    each([&](Weight& w, const WeightSpec& spec) {
      if (!w.trainable()) return;
      double decay = spec.rows > 1 ? 0.1 : 0.0;
      state[w.name].resize(w.value.size());
      for (size_t e = 0; e < w.value.size(); ++e) {
        State& s = state[w.name][e];
        s.m.resize(static_cast<size_t>(w.value[e].size()));
        s.v.resize(s.m.size());
        for (size_t i = 0; i < s.m.size(); ++i) {
          double g = 0.5 * get(w.grad[e], static_cast<int64_t>(i)), &x = want[w.name][e][i];
          s.m[i] = 0.9 * s.m[i] + 0.1 * g;
          s.v[i] = 0.95 * s.v[i] + 0.05 * g * g;
          x -= lr[step] * decay * x;
          x -= lr[step] * (s.m[i] / (1 - std::pow(0.9, t))) /
               (std::sqrt(s.v[i] / (1 - std::pow(0.95, t))) + 1e-8);
        }
      }
    });
  }
  EXPECT_EQ(opt.steps(), 3);
  auto got = snapshot();
  for (auto& [name, experts] : want) {
    for (size_t e = 0; e < experts.size(); ++e) {
      for (size_t i = 0; i < experts[e].size(); ++i) {
        ASSERT_NEAR(got[name][e][i], experts[e][i], tolerance_ * (0.01 + std::fabs(experts[e][i])))
            << name << " " << e << " " << i;
      }
    }
  }
}

TEST_P(OptimizerTest, WithoutAGradientOnlyMatricesDecay) {
  Optimizer opt(*dev_, *model_, {});
  each([&](Weight& w, const WeightSpec&) {
    for (Tensor& g : w.grad) dev_->zero(g);
  });
  auto before = snapshot();
  opt.step(0.01, 1.0);
  auto after = snapshot();
  each([&](Weight& w, const WeightSpec& spec) {
    double keep = spec.kind == WeightKind::kMatrix || spec.kind == WeightKind::kEmbedding
                      ? 1 - 0.01 * 0.1
                      : 1;
    for (size_t e = 0; e < w.value.size(); ++e) {
      for (size_t i = 0; i < before[w.name][e].size(); ++i) {
        ASSERT_NEAR(after[w.name][e][i], keep * before[w.name][e][i],
                    1e-7 * std::fabs(before[w.name][e][i]))
            << w.name;
      }
    }
  });
}

// The first step: the update is the gradient with all its singular values near 1, times
// 0.2·sqrt(max(rows, cols)).
TEST_P(OptimizerTest, MuonMakesEveryDirectionEquallyLong) {
  Optimizer opt(*dev_, *model_, {.muon = true});
  fill_gradients(0, 1e-3);
  auto before = snapshot();
  const double lr = 0.02;
  opt.step(lr, 0.7);
  int wide = 0, tall = 0;
  each([&](Weight& w, const WeightSpec& spec) {
    if (spec.kind != WeightKind::kMatrix || spec.full_precision) return;
    (w.rows < w.cols ? wide : tall) += 1;
    double scale = 0.2 * std::sqrt(static_cast<double>(std::max(w.rows, w.cols)));
    for (size_t e = 0; e < w.value.size(); ++e) {
      std::vector<double> x = before[w.name][e], g = values(w.grad[e]);
      double along = 0, nuclear = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = (x[i] * (1 - lr * 0.1) - get(w.value[e], static_cast<int64_t>(i))) / (lr * scale);
        along += x[i] * g[i];
      }
      for (double s : singular_values(x, w.rows, w.cols)) {
        EXPECT_GT(s, 0.7) << w.name;
        EXPECT_LT(s, 1.2) << w.name;
      }
      // <X, G> is largest, the sum of G's singular values, where X has G's singular vectors.
      for (double s : singular_values(g, w.rows, w.cols)) nuclear += s;
      EXPECT_GT(along, 0.85 * nuclear) << w.name;
    }
  });
  EXPECT_GT(wide, 3);
  EXPECT_GT(tall, 3);
}

TEST_P(OptimizerTest, MuonTreatsEveryExpertAlone) {
  Optimizer opt(*dev_, *model_, {.muon = true, .weight_decay = 0});
  fill_gradients(0);
  Weight& gate = named("mlp.experts.{}.gate_proj.weight");
  dev_->zero(gate.grad[2]);
  for (int64_t i = 0; i < gate.grad[1].size(); ++i)
    set(gate.grad[1], i, 1e6 * get(gate.grad[0], i));
  std::vector<double> before[3];
  for (size_t e = 0; e < 3; ++e) before[e] = values(gate.value[e]);
  opt.step(0.01, 1.0);
  EXPECT_EQ(values(gate.value[2]), before[2]);
  for (int64_t i = 0; i < gate.value[0].size();
       ++i) {  // the same direction, whatever the gradient's size
    size_t n = static_cast<size_t>(i);
    EXPECT_NEAR(get(gate.value[1], i) - before[1][n], get(gate.value[0], i) - before[0][n], 1e-6);
  }
}

// After two steps the update is that of G2 + μ(μ·G1 + G2): here G2 is opposite to G1, and only
// momentum keeps the direction.
TEST_P(OptimizerTest, MuonHasNesterovMomentum) {
  Weight& up = named("mlp.up_proj.weight");
  auto along_first_gradient = [&](double second) {
    Optimizer opt(*dev_, *model_, {.muon = true, .weight_decay = 0, .momentum = 0.95});
    fill_gradients(0);
    std::vector<double> g = values(up.grad[0]);
    opt.step(0.01, 1.0);
    for (size_t i = 0; i < g.size(); ++i) set(up.grad[0], static_cast<int64_t>(i), second * g[i]);
    std::vector<double> before = values(up.value[0]);
    opt.step(0.01, 1.0);
    double dot = 0;
    for (size_t i = 0; i < g.size(); ++i) {
      dot += g[i] * (before[i] - get(up.value[0], static_cast<int64_t>(i)));
    }
    return dot;
  };
  EXPECT_GT(along_first_gradient(-0.4), 0);  // 0.9025 - 1.95 · 0.4 > 0
  EXPECT_LT(along_first_gradient(-0.6), 0);  // 0.9025 - 1.95 · 0.6 < 0
}

TEST_P(OptimizerTest, StateIsNamedAfterTheWeights) {
  Optimizer opt(*dev_, *model_, {.muon = true});
  std::map<std::string, Tensor> state;
  int64_t bytes = 0;
  for (auto& [name, t] : opt.state()) {
    EXPECT_TRUE(state.emplace(name, t).second) << name;
    bytes += t.bytes();
  }
  EXPECT_EQ(bytes, opt.state_bytes());
  EXPECT_TRUE(state.count("m.model.layers.1.mlp.experts.3.down_proj.weight"));
  EXPECT_FALSE(
      state.count("v.model.layers.1.mlp.experts.3.down_proj.weight"));  // Muon has one state
  for (const char* adam : {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
                           "model.layers.1.mlp.gate.weight"}) {
    EXPECT_TRUE(state.count(std::string("m.") + adam)) << adam;
    EXPECT_TRUE(state.count(std::string("v.") + adam)) << adam;
  }
  for (auto& [name, t] : state) EXPECT_EQ(name.find("e_score_correction_bias"), std::string::npos);
}

TEST_P(OptimizerTest, AverageOfWeightsForgetsItsStartAndCanBeSwappedIn) {
  WeightEma ema(*dev_, *model_, 0.5);
  Weight& norm = named("model.norm.weight");  // ones
  dev_->zero(norm.value[0]);
  ema.update();  // β = min(0.5, 1/10)
  ema.update();  // 2/11
  set(norm.value[0], 0, 4);
  uint64_t version = norm.version;
  ema.exchange();
  EXPECT_GT(norm.version, version);
  EXPECT_NEAR(get(norm.value[0], 0), 0.1 * 2 / 11, 1e-8);
  ema.exchange();
  EXPECT_EQ(get(norm.value[0], 0), 4);
  {
    WeightEma other(*dev_, *model_, 0.9);
    dev_->zero(norm.value[0]);
    other.exchange();
    EXPECT_EQ(get(norm.value[0], 0), 4);
  }
  EXPECT_EQ(get(norm.value[0], 0), 0);  // swapped back
  size_t tensors = 0;
  each([&](Weight& w, const WeightSpec&) { tensors += w.value.size(); });
  EXPECT_EQ(ema.state().size(), tensors);
}

TEST_P(OptimizerTest, QkClipBringsTheHeadsThatExceedTauBackToTau) {
  for (int64_t q_rank : {16, 0}) {
    make_model(q_rank);
    each([&](Weight& w, const WeightSpec& spec) {  // scores of order one
      if (spec.kind != WeightKind::kMatrix) return;
      for (Tensor& t : w.value) dev_->axpby(0.0f, t, 8.0f, t);
    });
    Batch batch;
    batch.append(std::vector<int32_t>{1, 5, 7, 2, 9, 20, 3});
    batch.append(std::vector<int32_t>{4, 4, 8});
    Pool pool;
    auto before = max_attention_scores(*dev_, pool, *model_, batch, dtype_);
    ASSERT_EQ(before.size(), 3u);  // two blocks, one MTP module
    for (auto& layer : before) {
      for (double s : layer) EXPECT_TRUE(std::isfinite(s));
    }
    std::vector<double> heads = before[0];
    std::sort(heads.begin(), heads.end());
    ASSERT_GT(heads[1], 0);
    double tau = (heads[0] + heads[1]) / 2;  // two of block 0's three heads exceed it
    if (tau <= 0) tau = heads[1] / 2;
    std::vector<std::vector<double>> only_first(3, std::vector<double>(3, 0.0));
    only_first[0] = before[0];
    EXPECT_EQ(qk_clip(*dev_, *model_, only_first, tau), 2);
    auto after = max_attention_scores(*dev_, pool, *model_, batch, dtype_);
    for (size_t h = 0; h < 3; ++h) {
      double want = std::min(before[0][h], tau);
      EXPECT_NEAR(after[0][h], want, 2e-6 * std::fabs(want) + (dtype_ == DType::kF64 ? 0 : 1e-5))
          << "head " << h;
    }
    EXPECT_EQ(qk_clip(*dev_, *model_, before, 1e9), 0);
  }
}

TEST_P(OptimizerTest, QkClipSeesAllMicroBatchesOfAStep) {
  each([&](Weight& w, const WeightSpec& spec) {  // scores of order one
    if (spec.kind != WeightKind::kMatrix) return;
    for (Tensor& t : w.value) dev_->axpby(0.0f, t, 8.0f, t);
  });
  std::vector<MicroBatch> batch(2);
  batch[0].targets = batch[1].targets = {1, 2, 3, 4};
  batch[0].batch.append(batch[0].targets);
  batch[1].batch.append(std::vector<int32_t>{20, 9, 17, 5});
  Pool pool;
  auto largest = [&](size_t i) {
    return max_attention_scores(*dev_, pool, *model_, batch[i].batch, dtype_)[0][1];
  };
  if (largest(0) > largest(1)) std::swap(batch[0], batch[1]);
  double less = largest(0), more = largest(1);
  ASSERT_GT(more, std::max(less, 0.0));
  double tau = (std::max(less, 0.0) + more) / 2;  // of the second alone
  Trainer trainer(*dev_, *model_, {.dtype = dtype_, .qk_clip = tau});
  trainer.step(batch, pretrain_objective(batch, 1, 0.3), 0);
  EXPECT_NEAR(largest(1), tau, 1e-4 * tau);
}

// The measure itself, with attention replaced by its definition: all scores of block 0, pair by
// pair.
TEST_P(OptimizerTest, LargestScoresAreThoseOfTheCausalPairs) {
  Batch batch;
  batch.append(std::vector<int32_t>{1, 5, 7, 2, 9});
  batch.append(std::vector<int32_t>{4, 8, 11});
  Pool pool;
  std::map<std::string, Var> seen;
  Ctx ctx{.dev = *dev_, .pool = pool, .tape = nullptr, .dtype = dtype_};
  ForwardOptions options;
  options.observe = [&](const std::string& name, const Var& v) { seen[name] = v; };
  model_->hidden(ctx, batch, options);
  std::vector<double> q = values(seen.at("layer0.query").t),
                      kv = values(seen.at("layer0.key_value").t);
  std::vector<double> rotated = values(seen.at("layer0.rotated_key").t);
  auto got = max_attention_scores(*dev_, pool, *model_, batch, dtype_);
  for (size_t h = 0; h < 3; ++h) {
    double most = -1e9;
    for (size_t i = 0; i < 8; ++i) {
      for (size_t j = i < 5 ? 0 : 5; j <= i; ++j) {
        double dot = 0;
        for (size_t c = 0; c < 6; ++c) dot += q[i * 30 + h * 10 + c] * kv[j * 33 + h * 11 + c];
        for (size_t c = 0; c < 4; ++c) dot += q[i * 30 + h * 10 + 6 + c] * rotated[j * 4 + c];
        most = std::max(most, dot / std::sqrt(10.0));
      }
    }
    EXPECT_NEAR(got[0][h], most, 1e-6 * std::fabs(most) + 1e-9) << "head " << h;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, OptimizerTest, testing::Values("ref:double", "cpu"),
                         [](const auto& info) {
                           return info.param == "cpu" ? "cpu" : "ref_double";
                         });

}  // namespace
}  // namespace wels
