#include "train/sft_stage.h"

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/error.h"
#include "train/presets.h"

namespace wels {
namespace {

constexpr int32_t kVocab = 12, kEnd = 11;

// "a b ? → a, end", of which the last two are learned; endless.
class Recalls : public ExampleSource {
 public:
  int64_t size() const override { return -1; }
  TrainingTokens example(int64_t i) const override {
    auto a = static_cast<int32_t>(i * 7 % 10), b = static_cast<int32_t>(i / 10 * 3 % 10);
    TrainingTokens t;
    t.append({a, b, 10}, false);
    t.append({a, kEnd}, true);
    return t;
  }
  uint64_t hash() const override { return 1; }
};

ModelConfig small_config() {
  ModelConfig c = preset("nano").model;
  c.vocab_size = kVocab;
  c.hidden_size = 64;
  c.num_hidden_layers = 2;
  c.intermediate_size = 128;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.q_lora_rank = 32;
  c.kv_lora_rank = 16;
  return c;
}

SftSettings settings() {
  SftSettings s;
  s.batch = 32;
  s.longest = 16;
  s.micro_batch_tokens = 64;
  s.trainer.dtype = DType::kF32;
  s.trainer.optimizer.weight_decay = 0;
  return s;
}

struct Fixture {
  std::unique_ptr<Device> dev = make_device("cpu");
  Model model{small_config()};
  SftSettings s = settings();
  Recalls source;
  Fixture() { model.init(DType::kF32, 3, true); }
};

TEST(SftStage, PackedExamplesDoNotSeeEachOther) {
  Fixture f;
  Trainer trainer(*f.dev, f.model, f.s.trainer);
  std::vector<MicroBatch> together = example_batch(f.source, 1, 0, 8, f.s);
  ASSERT_EQ(together.size(), 1u);
  std::vector<double> packed = trainer.log_probabilities(together[0]), alone;
  for (int64_t i = 0; i < 8; ++i) {
    std::vector<double> one = trainer.log_probabilities(example_batch(f.source, 1, i, 1, f.s)[0]);
    alone.insert(alone.end(), one.begin(), one.end());
  }
  EXPECT_EQ(packed, alone);
}

TEST(SftStage, LossIsTheMeanOverTheLearnedTokensOfTheWholeStep) {
  Fixture f;
  Trainer trainer(*f.dev, f.model, f.s.trainer);
  SftStage stage(*f.dev, f.model, f.source, f.source, f.s, {});
  AnswerEvaluation e = evaluate_answers(*f.dev, f.model, trainer.pool(), f.source, f.s.batch, f.s);
  EXPECT_EQ(e.tokens, 2 * f.s.batch);
  StepMetrics m;
  StageStep done = stage.step(trainer, TrainerState(), 0.0, m);
  EXPECT_NEAR(done.loss, e.loss, 1e-5);
  EXPECT_EQ(done.tokens, 4 * f.s.batch);
  EXPECT_EQ(m.scalar("learned_tokens"), 2.0 * static_cast<double>(f.s.batch));
}

TEST(SftStage, LearnsAnswersAndNothingOfTheQuestions) {
  Fixture f;
  Trainer trainer(*f.dev, f.model, f.s.trainer);
  SftStage stage(*f.dev, f.model, f.source, f.source, f.s, {});
  AnswerEvaluation before = evaluate_answers(*f.dev, f.model, trainer.pool(), f.source, 100, f.s);
  EXPECT_LT(before.accuracy, 0.5);
  TrainerState state;
  for (; state.step < 400; ++state.step, state.sequences += f.s.batch) {
    StepMetrics m;
    stage.step(trainer, state, 3e-3, m);
  }
  AnswerEvaluation after = evaluate_answers(*f.dev, f.model, trainer.pool(), f.source, 100, f.s);
  EXPECT_GT(after.accuracy, 0.97) << "loss " << after.loss;
  StepMetrics m;
  EXPECT_LT(stage.validate(trainer, &m, false), 0.1);
  EXPECT_GT(m.scalar("val_token_accuracy"), 0.97);
  // The first question token was never learned: the model must not have come to expect any.
  MicroBatch question;
  append_example({{10, 3}, {0, 1}}, question.batch, question.targets);
  EXPECT_LT(trainer.log_probabilities(question)[0], -0.5);
}

TEST(SftStage, DrawsTheSameExamplesInEveryRunAndRefusesLongOnes) {
  Fixture f;
  std::vector<MicroBatch> a = example_batch(f.source, 5, 64, 32, f.s),
                          b = example_batch(f.source, 5, 64, 32, f.s);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].batch.tokens, b[i].batch.tokens);
    EXPECT_LE(a[i].batch.rows(), f.s.micro_batch_tokens);
  }
  f.s.longest = 4;
  EXPECT_THROW(example_batch(f.source, 5, 0, 1, f.s), Error);
}

}  // namespace
}  // namespace wels
