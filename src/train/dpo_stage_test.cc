#include "train/dpo_stage.h"

#include <gtest/gtest.h>

#include <cmath>

#include "backend/registry.h"
#include "train/presets.h"

namespace wels {
namespace {

constexpr int32_t kVocab = 12, kEnd = 11;

ModelConfig small_config() {
  ModelConfig c = preset("nano").model;
  c.vocab_size = kVocab;
  c.hidden_size = 32;
  c.num_hidden_layers = 2;
  c.intermediate_size = 64;
  c.num_attention_heads = c.num_key_value_heads = 1;
  c.q_lora_rank = 16;
  c.kv_lora_rank = 8;
  c.num_nextn_predict_layers = 0;
  return c;
}

TrainingTokens tokens(std::vector<int32_t> prompt, std::vector<int32_t> answer) {
  TrainingTokens t;
  t.append(prompt, false);
  answer.push_back(kEnd);
  t.append(answer, true);
  return t;
}

// Of two answers of different lengths the one that repeats the question is better.
Preferences repeating(int32_t n) {
  Preferences p;
  for (int32_t i = 0; i < n; ++i) {
    p.chosen.add(tokens({i % 10, 10}, {i % 10}));
    p.rejected.add(tokens({i % 10, 10}, {(i + 3) % 10, 0}));
  }
  return p;
}

TEST(Dpo, TermIsThePapersFormula) {
  DpoTerm t = dpo_term({-2, -3}, {-2.5, -2}, 0.1);
  EXPECT_NEAR(t.margin, 0.1 * (0.5 - -1.0), 1e-15);
  EXPECT_NEAR(t.loss, -std::log(1 / (1 + std::exp(-0.15))), 1e-12);
  EXPECT_NEAR(dpo_term({0, 0}, {0, 0}, 0.1).loss, std::log(2.0), 1e-15);
  EXPECT_NEAR(dpo_term({-1e6, 0}, {0, 0}, 0.1).loss, 1e5, 1e-6) << "no overflow";
  EXPECT_EQ(dpo_term({1e6, 0}, {0, 0}, 0.1).loss, 0);
}

TEST(Dpo, GradientOfTheTermIsItsSlope) {
  PairLogp reference{-2.5, -2};
  for (double chosen : {-9.0, -2.0, 4.0}) {
    PairLogp now{chosen, -3};
    double h = 1e-6, g = dpo_term(now, reference, 0.3).gradient;
    double up = dpo_term({chosen + h, -3}, reference, 0.3).loss;
    double down = dpo_term({chosen - h, -3}, reference, 0.3).loss;
    EXPECT_NEAR(g, (up - down) / (2 * h), 1e-8);
    up = dpo_term({chosen, -3 + h}, reference, 0.3).loss;
    down = dpo_term({chosen, -3 - h}, reference, 0.3).loss;
    EXPECT_NEAR(-g, (up - down) / (2 * h), 1e-8);
  }
}

TEST(Dpo, ObjectivesGradientIsTheLosssSlopeInEveryLogProbability) {
  Preferences data = repeating(3);
  PairBatch batch = pack_pairs(data, {0, 1, 2}, 8);  // of 7 rows each
  ASSERT_EQ(batch.micro_batches.size(), 3u);
  batch = pack_pairs(data, {2, 0, 1}, 100);
  ASSERT_EQ(batch.micro_batches.size(), 1u);
  std::vector<PairLogp> reference = {{-1, -2}, {-3, -1}, {-2, -2}};
  const MicroBatch& mb = batch.micro_batches[0];
  size_t n = mb.targets.size();
  std::vector<int32_t> rows(n);
  std::vector<double> logp(n), dlogp(n, 0.0), unused(n);
  for (size_t i = 0; i < n; ++i) {
    rows[i] = static_cast<int32_t>(i);
    logp[i] = mb.targets[i] < 0 ? 0 : -0.1 * static_cast<double>(i + 1);
  }
  Objective objective = dpo_objective(batch, reference, 0.5);
  objective.loss(mb, 0, rows, logp, dlogp);
  for (size_t i = 0; i < n; ++i) {
    double h = 1e-6;
    std::vector<double> moved = logp;
    moved[i] += h;
    double up = objective.loss(mb, 0, rows, moved, unused);
    moved[i] -= 2 * h;
    double down = objective.loss(mb, 0, rows, moved, unused);
    double slope = mb.targets[i] < 0 ? 0 : (up - down) / (2 * h);
    EXPECT_NEAR(dlogp[i], slope, 1e-8) << "row " << i;
  }
}

TEST(Dpo, GradientsOfTheWeightsAreDifferencesOfTheLoss) {
  std::unique_ptr<Device> dev = make_device("ref:double");
  Model model(small_config());
  model.init(DType::kF64, 5, true);
  Preferences data = repeating(4);
  TrainerConfig config;
  config.dtype = DType::kF64;
  config.balance_alpha = 0;
  std::vector<PairLogp> reference = pair_logps(*dev, model, config, data, 64);
  for (PairLogp& r : reference) r.chosen += 0.7;  // away from the point of symmetry
  PairBatch batch = pack_pairs(data, {0, 1, 2, 3}, 64);
  Trainer trainer(*dev, model, config);
  Objective objective = dpo_objective(batch, reference, 0.5);
  auto loss = [&] { return trainer.gradients(batch.micro_batches, objective).loss[0]; };
  loss();
  Weight& w = model.weights().blocks[1].attention.o;
  for (int64_t c : {0, 7, 19}) {
    double g = w.grad[0].row<double>(3)[c], h = 1e-5, &x = w.value[0].row<double>(3)[c];
    x += h;
    ++w.version;
    double up = loss();
    x -= 2 * h;
    ++w.version;
    double down = loss();
    x += h;
    ++w.version;
    EXPECT_NEAR(g, (up - down) / (2 * h), 1e-8);
    loss();
  }
}

TEST(Dpo, TheMarginGrows) {
  std::unique_ptr<Device> dev = make_device("cpu");
  Model model(small_config());
  model.init(DType::kF32, 5, true);
  PreferenceData data;
  data.train = repeating(40);
  data.held_out = repeating(10);
  DpoSettings s;
  s.batch = 16;
  s.trainer.dtype = DType::kF32;
  s.trainer.optimizer.weight_decay = 0;
  std::vector<PairLogp> train = pair_logps(*dev, model, s.trainer, data.train, 256),
                        held_out = pair_logps(*dev, model, s.trainer, data.held_out, 256);
  Trainer trainer(*dev, model, s.trainer);
  DpoStage stage(data, train, held_out, s, {});
  StepMetrics m;
  stage.step(trainer, TrainerState(), 0.0, m);
  EXPECT_NEAR(stage.last_step().loss, std::log(2.0), 1e-6) << "nothing has changed yet";
  EXPECT_NEAR(stage.last_step().margin, 0, 1e-6);
  TrainerState state;
  for (; state.step < 60; ++state.step, state.sequences += s.batch) {
    StepMetrics each;
    stage.step(trainer, state, 1e-3, each);
  }
  EXPECT_LT(stage.validate(trainer, &m, false), 0.4);
  EXPECT_GT(stage.last_evaluation().margin, 0.8);
  EXPECT_EQ(stage.last_evaluation().accuracy, 1.0);
  EXPECT_GT(stage.last_evaluation().chosen_reward, stage.last_evaluation().rejected_reward);
}

}  // namespace
}  // namespace wels
