#include "rl/rl_stage.h"

#include <gmock/gmock.h>

#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <csignal>

#include "base/signal.h"
#include "base/test_folder.h"
#include "formats/hf_config.h"
#include "rl/rl_base_test.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

// All weights as one list.
std::vector<float> values_of(Model& model, bool main_only = false) {
  std::vector<float> out;
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
    if (main_only && s.layer >= model.config().num_hidden_layers) return;
    for (const Tensor& t : w.value) {
      for (int64_t r = 0; r < t.rows; ++r)
        out.insert(out.end(), t.row<float>(r), t.row<float>(r) + t.cols);
    }
  });
  return out;
}

using RlStageTest = RlTest;

TEST_F(RlStageTest, TheBaseGuessesAtOnceAndIsRightWhereItThinks) {
  RolloutSampler sampler(*dev, *start, tokenizer, {.dtype = DType::kF32, .max_tokens = 16});
  TaskEvaluation e = evaluate_tasks(sampler, TaskMixture(kTestTask),
                                    {.items = 64, .samples = 16, .split = TaskSplit::kTrain});
  EXPECT_LT(e.greedy.accuracy, 0.8);
  EXPECT_LT(e.greedy.long_share, 0.3);
  EXPECT_GT(e.sampled.long_share, 0.12);
  EXPECT_LT(e.sampled.long_share, 0.45);
  EXPECT_GT(e.sampled.ended, 0.97);
  EXPECT_GT(e.pass_at_k, 0.95);
}

TEST_F(RlStageTest, RewardForRightAnswersAloneTeachesItToThinkFirst) {
  constexpr int64_t kSteps = 30;
  RlSettings s = settings("reinforce");
  s.groups = s.samples = 16;
  RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  double before = 1 - stage.validate(trainer, nullptr, false), first = 0, last = 0;
  TrainerState state;
  for (; state.step < kSteps; ++state.step) {
    StepMetrics m;
    stage.step(trainer, state, 5e-4, m);
    if (state.step < 5) first += m.scalar("reward_mean") / 5;
    if (state.step >= kSteps - 5) last += m.scalar("reward_mean") / 5;
    EXPECT_LT(m.scalar("logp_mismatch_max"), 1e-5);
  }
  double after = 1 - stage.validate(trainer, nullptr, false);
  EXPECT_LT(first, 0.75);
  EXPECT_GT(last, 0.9);
  EXPECT_GT(after, before + 0.2);
  EXPECT_GT(after, 0.9);
  EXPECT_GT(stage.last_evaluation().greedy.long_share, 0.9);
}

TEST_F(RlStageTest, TheStatusSaysNothingOfGreedyAnswersBeforeThereAreAny) {
  RlStage stage(*dev, *policy, *start, tokenizer, settings("reinforce"), trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  EXPECT_THAT(stage.status(), testing::Not(testing::HasSubstr("greedy")));
  stage.validate(trainer, nullptr, false);
  EXPECT_THAT(stage.status(), testing::HasSubstr("greedy 0."));
}

// So many lines of a task file.
std::string questions(int count, const std::string& answer = "odd") {
  std::string lines;
  for (int i = 0; i < count; ++i)
    lines += fmt::format("{{\"question\": \"parity {:08b}\", \"answer\": \"{}\"}}\n", i, answer);
  return lines;
}

TEST_F(RlStageTest, EveryQuestionOfAFileIsLookedAtBeforeTheFirstStep) {
  TestFolder folder;
  RlSettings s = settings("reinforce");
  auto error = [&](const std::string& content) {
    s.tasks = folder.file("asked.jsonl", content);
    return error_of([&] { RlStage(*dev, *policy, *start, tokenizer, s, trainer_config()); });
  };
  std::string longest =
      fmt::format("{{\"question\": \"{}\", \"answer\": \"odd\"}}\n", std::string(2000, '0'));
  s.groups = 1;
  EXPECT_THAT(error(questions(40) + longest),
              testing::HasSubstr("asked.jsonl:41: the question leaves no room for 16 new tokens"));
  std::string train;
  for (int i = 0; i < 40; ++i) {
    if (!is_held_out(fmt::format("parity {:08b}", i)))
      train += fmt::format("{{\"question\": \"parity {:08b}\", \"answer\": \"odd\"}}\n", i);
  }
  EXPECT_THAT(error(train), testing::HasSubstr("asked.jsonl: has no held-out question"));
}

TEST_F(RlStageTest, ARunDoesNotGoOnWithOtherQuestionsInItsFile) {
  TestFolder folder;
  RlSettings s = settings("reinforce");
  auto counters = [&](const std::string& content) {
    s.tasks = folder.file("asked.jsonl", content);
    return RlStage(*dev, *policy, *start, tokenizer, s, trainer_config()).counters();
  };
  nlohmann::json other = counters(questions(40, "even")), same = counters(questions(40)),
                 old = same;
  old.erase("task_files");
  RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
  stage.restore(same);
  stage.restore(old);
  EXPECT_THAT(error_of([&] { stage.restore(other); }), testing::HasSubstr("other questions"));
}

TEST_F(RlStageTest, ARunDoesNotGoOnWithAnotherNumberOfHeldOutQuestions) {
  RlSettings s = settings("reinforce");
  RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
  nlohmann::json same = stage.counters(), old = same;
  old.erase("eval_items");
  ++s.evaluation.items;
  RlStage other(*dev, *policy, *start, tokenizer, s, trainer_config());
  other.restore(old);
  EXPECT_THAT(error_of([&] { other.restore(same); }), testing::HasSubstr("--eval-items"));
}

TEST_F(RlStageTest, TheTokensOfAnswersAreCountedWithoutTheirPrompts) {
  RlSettings s = settings("reinforce");
  RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  StepMetrics m;
  StageStep done = stage.step(trainer, {}, 1e-3, m);
  EXPECT_NEAR(static_cast<double>(stage.sampled_tokens()),
              m.scalar("length_mean") * static_cast<double>(done.sequences), 1e-6);
}

// Counted, said, and no collapse.
TEST_F(RlStageTest, AFailingCheckerStopsNothing) {
  TestFolder folder;
  std::string file = folder.file("failing.jsonl", questions(40));
  RlSettings s = settings("reinforce");
  s.tasks = file + "@command=exit 3";
  s.groups = s.samples = 2;
  RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  TrainerState state;
  testing::internal::CaptureStderr();
  int64_t answers = 0;
  for (; state.step < 25; ++state.step) {
    StepMetrics m;
    StageStep done = stage.step(trainer, state, 1e-3, m);
    ASSERT_FALSE(done.collapse) << done.collapse->what();
    ASSERT_GT(m.scalar("checker_failures"), 0);
    answers += static_cast<int64_t>(m.scalar("checker_failures"));
  }
  std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(stage.checker_failures(), answers);
  EXPECT_THAT(stage.status(), testing::HasSubstr(fmt::format("not checked {}", answers)));
  EXPECT_THAT(said, testing::ContainsRegex("step 11: [0-9]+ of [0-9]+ answers could not be"));
  EXPECT_THAT(said, testing::HasSubstr("the task's checker fails"));
}

TEST_F(RlStageTest, EveryAlgorithmTakesAStepAndKeepsTheModulesFrozen) {
  std::vector<float> base = values_of(*policy), main = values_of(*policy, true);
  for (const RlAlgorithm& a : rl_algorithms()) {
    SCOPED_TRACE(a.name);
    policy = trainable();
    RlSettings s = settings(a.name);
    s.groups = std::max(s.groups, a.mini_batches);
    RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
    Trainer trainer(*dev, *policy, trainer_config());
    StepMetrics m;
    StageStep done = stage.step(trainer, {}, 1e-5, m);
    EXPECT_FALSE(done.nothing_to_learn);
    EXPECT_FALSE(done.stats.skipped);
    EXPECT_GT(done.tokens, 0);
    EXPECT_GT(done.stats.gradient_norm, 0);
    EXPECT_EQ(trainer.optimizer().steps(), a.mini_batches);
    EXPECT_NE(values_of(*policy, true), main);
    size_t modules = base.size() - main.size();
    std::vector<float> now = values_of(*policy);
    ASSERT_GT(modules, size_t{0});
    EXPECT_TRUE(std::equal(now.end() - static_cast<long>(modules), now.end(),
                           base.end() - static_cast<long>(modules)));
  }
}

// On-policy the surrogates have one gradient, by the quick way (known before the values) or not.
TEST_F(RlStageTest, OnPolicySurrogatesMakeTheSameUpdate) {
  auto after = [&](auto change) {
    policy = trainable();
    RlSettings s = settings("reinforce");
    change(s.algorithm.loss);
    RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
    Trainer trainer(*dev, *policy, trainer_config());
    StepMetrics m;
    stage.step(trainer, {}, 1e-3, m);
    return values_of(*policy);
  };
  std::vector<float> plain = after([](PolicyLoss&) {});
  EXPECT_EQ(after([](PolicyLoss& p) { p.surrogate = Surrogate::kClipped; }), plain);
  std::vector<float> slow = after([](PolicyLoss& p) {
    p.surrogate = Surrogate::kClipped;
    p.correction = Correction::kTruncate;  // weights of 1 up to the mismatch
  });
  size_t moved = 0;
  for (size_t i = 0; i < plain.size(); ++i) moved += std::fabs(plain[i] - slow[i]) > 1e-4f;
  EXPECT_NE(slow, plain);                 // it went another way
  EXPECT_LT(moved, plain.size() / 1000);  // Adam's first step is lr · sign: tiny gradients differ
}

// Several updates on what the sampler kept: finite, learning, and by the same numbers at first.
TEST_F(RlStageTest, StepsKeepTheSamplersMaskAndRouting) {
  RlSettings s = settings("grpo");
  s.rollout.top_p = 0.9;
  s.rollout.keep_routing = true;
  s.algorithm.mini_batches = 2;
  s.algorithm.loss.beta = 0.01;
  RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  TrainerState state;
  for (; state.step < 3; ++state.step) {
    StepMetrics m;
    StageStep done = stage.step(trainer, state, 1e-4, m);
    EXPECT_FALSE(done.stats.skipped);
    EXPECT_GT(done.stats.gradient_norm, 0);
    EXPECT_GT(stage.last_mismatch().tokens, 100);
    EXPECT_LT(stage.last_mismatch().largest, 1e-5);
  }
}

// Where rollouts attend as the trainer does the heads' rounding is left; in bf16 they do so if
// asked, else MLA rounds differently over the cache (largest seen on this base: 0.14).
TEST_F(RlStageTest, SampledLogProbabilitiesAreTheTrainersInBothTypesAndAtAnyTemperature) {
  struct Case {
    DType dtype;
    bool exact;
    double temperature, largest, mean;
  };
  for (Case c :
       {Case{DType::kF32, false, 1, 1e-5, 5e-7}, Case{DType::kF32, false, 0.7, 1e-5, 5e-7},
        Case{DType::kBF16, true, 1, 1e-5, 5e-7}, Case{DType::kBF16, true, 0.7, 1e-5, 5e-7},
        Case{DType::kBF16, false, 1, 0.5, 0.01}, Case{DType::kBF16, false, 0.7, 0.7, 0.015}}) {
    SCOPED_TRACE(fmt::format("{} {} at {}", name(c.dtype), c.exact, c.temperature));
    policy = trainable();
    RlSettings s = settings("grpo");
    s.rollout.dtype = c.dtype;
    s.rollout.exact = c.exact;
    s.temperature = c.temperature;
    TrainerConfig config = trainer_config(c.dtype);
    config.temperature = c.temperature;
    RlStage stage(*dev, *policy, *start, tokenizer, s, config);
    Trainer trainer(*dev, *policy, config);
    TrainerState state;
    for (; state.step < 3; ++state.step) {  // also behind updates: nothing stale is used
      StepMetrics m;
      stage.step(trainer, state, 1e-3, m);
      EXPECT_GT(stage.last_mismatch().tokens, 100);
      EXPECT_LT(stage.last_mismatch().largest, c.largest);
      EXPECT_LT(stage.last_mismatch().mean(), c.mean);
    }
  }
}

TEST_F(RlStageTest, TheDivergenceFromTheStartBeginsAtZeroAndGrows) {
  RlStage stage(*dev, *policy, *start, tokenizer, settings("reinforce"), trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  TrainerState state;
  std::vector<double> kl;
  for (; state.step < 10; ++state.step) {
    StepMetrics m;
    stage.step(trainer, state, 1e-3, m);
    kl.push_back(m.scalar("kl_start"));
  }
  EXPECT_EQ(kl.front(), 0);
  EXPECT_GT(kl.back(), 1e-3);
}

TEST_F(RlStageTest, GroupsWithoutVarianceTeachNothing) {
  // An untrained model gets everything wrong.
  Model fresh(policy->config());
  fresh.init(DType::kF32, 1, true);
  freeze_mtp(fresh);
  RlStage stage(*dev, fresh, *start, tokenizer, settings("reinforce"), trainer_config());
  Trainer trainer(*dev, fresh, trainer_config());
  std::vector<float> before = values_of(fresh);
  TrainerState state;
  StepMetrics m;
  StageStep done = stage.step(trainer, state, 1e-3, m);
  EXPECT_TRUE(done.nothing_to_learn);
  EXPECT_EQ(m.scalar("groups_without_variance"), 1);
  EXPECT_EQ(m.scalar("advantage_std"), 0);
  EXPECT_EQ(values_of(fresh), before);
  // And in the end it is said and stopped.
  for (state.step = 1; state.step < 30; ++state.step) {
    StepMetrics more;
    if (stage.step(trainer, state, 1e-3, more).collapse) break;
  }
  EXPECT_EQ(state.step, 19);
}

TEST_F(RlStageTest, DynamicSamplingReplacesGroupsWithoutVariance) {
  RlSettings s = settings("dapo");
  s.samples = 4;  // many groups agree
  RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  StepMetrics m;
  StageStep done = stage.step(trainer, {}, 1e-3, m);
  EXPECT_GT(m.scalar("groups_drawn"), 8);
  EXPECT_EQ(done.sequences, 4 * static_cast<int64_t>(m.scalar("groups_drawn")));
  EXPECT_EQ(stage.counters().at("next_item"), m.scalar("groups_drawn"));
}

// --- adapters ---

std::vector<float> values_of(const LoraSet& set) {
  std::vector<float> out;
  for (const auto& lora : set) {
    for (const Weight* w : {&lora->down, &lora->up}) {
      const float* x = w->value[0].row<float>(0);
      out.insert(out.end(), x, x + w->size());
    }
  }
  return out;
}

TEST_F(RlStageTest, AdaptersAloneLearnToThinkFirst) {
  constexpr int64_t kSteps = 30;
  policy = adapted();
  std::vector<float> base = values_of(*policy), adapters = values_of(lora_of(*policy));
  RlSettings s = settings("reinforce");
  s.groups = s.samples = 16;
  RlStage stage(*dev, *policy, *policy, tokenizer, s, trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  double before = 1 - stage.validate(trainer, nullptr, false);
  TrainerState state;
  for (; state.step < kSteps; ++state.step) {
    StepMetrics m;
    stage.step(trainer, state, 5e-3, m);
    if (state.step == 0) {
      EXPECT_NEAR(m.scalar("kl_start"), 0, 1e-6);
    }
    if (state.step == kSteps - 1) {
      EXPECT_GT(m.scalar("kl_start"), 1e-2);
      EXPECT_GT(m.scalar("reward_mean"), 0.9);
    }
    EXPECT_LT(m.scalar("logp_mismatch_max"), 1e-5);
  }
  EXPECT_GT(1 - stage.validate(trainer, nullptr, false), before + 0.2);
  EXPECT_TRUE(values_of(*policy) == base) << "the model below has changed";
  EXPECT_NE(values_of(lora_of(*policy)), adapters);
}

TEST_F(RlStageTest, TheReferenceOfAdaptersFollowsThemWhenItIsDue) {
  policy = adapted();
  RlSettings s = settings("grpo");
  s.reference_refresh = 2;
  RlStage stage(*dev, *policy, *policy, tokenizer, s, trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  auto reference = [&] {
    std::vector<float> out;
    for (auto& [name, t] : stage.state()) {
      EXPECT_TRUE(name.starts_with("reference.base_model.model.model.layers.")) << name;
      out.insert(out.end(), t.row<float>(0), t.row<float>(0) + t.size());
    }
    return out;
  };
  std::vector<float> first = values_of(lora_of(*policy)), second;
  EXPECT_EQ(reference(), first);
  TrainerState state;
  std::vector<double> kl;
  for (; state.step < 3; ++state.step) {
    if (state.step == 2) {
      EXPECT_EQ(reference(), first);
      second = values_of(lora_of(*policy));
    }
    StepMetrics m;
    stage.step(trainer, state, 5e-3, m);
    kl.push_back(m.scalar("kl_reference"));
  }
  EXPECT_EQ(reference(), second);
  EXPECT_NE(values_of(lora_of(*policy)), second);
  EXPECT_NEAR(kl[0], 0, 1e-6);
  EXPECT_GT(kl[1], 1e-3);
  EXPECT_NEAR(kl[2], 0, 1e-6);
}

// --- resuming ---

std::string bytes_of(const std::string& run, int64_t step, const char* file) {
  return read_file(checkpoint_folder(run, step) + "/" + file);
}

// Steps of a stage as `wels rl` makes them, in a run folder.
struct RunOptions {
  bool by_adapters = false;
  int64_t save_every = 1, keep = 100;
  int64_t doubted_from = 0;  // step from which on the answers are doubtful; 0: as they are
  int64_t signal_in = 0;     // a stop signal comes in this step; 0: none
};

// Says that the policy is collapsing from some step on, and gives up six steps later; is sent a
// signal.
class Troubled : public RlStage {
 public:
  Troubled(Device& dev, Model& policy, Model& start, const Tokenizer& tokenizer,
           const RlSettings& settings, const TrainerConfig& trainer, const RunOptions& o)
      : RlStage(dev, policy, start, tokenizer, settings, trainer),
        from_(o.doubted_from),
        signal_in_(o.signal_in) {}
  StageStep step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) override {
    if (state.step + 1 == signal_in_) std::raise(SIGTERM);
    StageStep done = RlStage::step(trainer, state, lr, m);
    step_ = state.step + 1;
    if (from_ > 0 && doubtful_steps() > 6) done.collapse = Error("training", "all is lost");
    return done;
  }
  int64_t doubtful_steps() const override {
    return from_ > 0 ? std::max<int64_t>(step_ - from_ + 1, 0) : RlStage::doubtful_steps();
  }

 private:
  int64_t from_, signal_in_, step_ = 0;
};

StageResult run(const std::string& out, const RlSettings& s, int64_t steps,
                RunOptions options = {}) {
  bool by_adapters = options.by_adapters;
  auto dev = make_device("cpu");
  Tokenizer tokenizer = Tokenizer::load(test_base_folder());
  auto start = load_model(test_base_folder(), WeightStorage::kMapped);
  auto policy = by_adapters ? RlTest::adapted() : RlTest::trainable();
  StageSettings stage_settings;
  stage_settings.out = out;
  stage_settings.schedule = {.peak = 5e-4, .steps = steps, .warmup = 0, .stable = 1};
  stage_settings.trainer = RlTest::trainer_config(s.rollout.dtype);
  stage_settings.save_every = options.save_every;
  stage_settings.eval_every = 2;
  stage_settings.keep = options.keep;
  stage_settings.quiet = true;
  CheckpointParts parts = whole_model(*policy, {{"tokenizer.json", test_tokenizer_json()}});
  if (by_adapters) {
    parts.save_model = [&](const std::string& folder) {
      save_lora(folder, *policy, RlTest::lora_config());
      write_file_atomic(folder + "/config.json", to_hf_config(policy->config()));
    };
    parts.load_model = [&](const std::string& folder) { load_lora(folder, *policy); };
  }
  Troubled stage(*dev, *policy, by_adapters ? *policy : *start, tokenizer, s,
                 stage_settings.trainer, options);
  return run_stage({.dev = *dev, .model = *policy, .parts = parts, .report = {}}, stage_settings,
                   stage);
}

TEST_F(RlStageTest, AResumedRunIsTheUninterruptedOneBitForBit) {
  RlSettings grpo = settings("grpo");
  grpo.algorithm.mini_batches = 2;
  grpo.epochs = 2;
  grpo.reference_refresh = 2;
  grpo.tasks = "parity:3-6";
  grpo.curriculum = true;
  RlSettings dapo = settings("dapo");
  dapo.rollout.dtype = DType::kBF16;
  dapo.samples = 4;
  for (const RlSettings& s : {grpo, dapo}) {
    SCOPED_TRACE(s.algorithm.name);
    TestFolder folder;
    std::string whole = folder / "whole", cut = folder / "cut";
    run(whole, s, 5);
    fs::copy(whole, cut, fs::copy_options::recursive);
    for (int64_t step : list_checkpoints(cut)) {  // as if it had been killed behind step 2
      if (step > 2) fs::remove_all(checkpoint_folder(cut, step));
    }
    run(cut, s, 5);
    for (int64_t step : {3, 5}) {
      for (const char* file : {"model.safetensors", "trainer.safetensors"})
        EXPECT_TRUE(bytes_of(whole, step, file) == bytes_of(cut, step, file)) << step << file;
    }
    RlSettings other = s;
    other.samples += 1;
    EXPECT_THROW(run(cut, other, 5), Error);
  }
}

// A signal gives its step up before the update: rollouts, counters and the curriculum are as if it
// had not begun.
TEST_F(RlStageTest, ARunThatASignalStoppedIsTheUninterruptedOneBitForBit) {
  RlSettings s = settings("grpo");
  s.reference_refresh = 2;  // in the step that is given up
  s.tasks = "parity:3-6";
  s.curriculum = true;
  TestFolder folder;
  std::string whole = folder / "whole", cut = folder / "cut";
  run(whole, s, 5);
  StageResult r = run(cut, s, 5, {.signal_in = 3});
  EXPECT_TRUE(r.stopped);
  EXPECT_EQ(r.steps, 2);
  run(cut, s, 5);
  for (const char* file : {"model.safetensors", "trainer.safetensors"})
    EXPECT_TRUE(bytes_of(whole, 5, file) == bytes_of(cut, 5, file)) << file;
  auto counters = [&](const std::string& at) {
    return nlohmann::json::parse(bytes_of(at, 5, "trainer.json"))["settings"]["counters"];
  };
  EXPECT_EQ(counters(cut), counters(whole));
}

TEST_F(RlStageTest, AResumedRunOfAdaptersIsTheUninterruptedOneBitForBit) {
  RlSettings s = settings("grpo");
  s.algorithm.mini_batches = 2;
  s.reference_refresh = 3;  // behind the resume, and the copy of before it
  TestFolder folder;
  std::string whole = folder / "whole", cut = folder / "cut";
  run(whole, s, 7, {.by_adapters = true});
  fs::copy(whole, cut, fs::copy_options::recursive);
  for (int64_t step : list_checkpoints(cut)) {
    if (step > 4) fs::remove_all(checkpoint_folder(cut, step));
  }
  run(cut, s, 7, {.by_adapters = true});
  for (int64_t step : {5, 7}) {
    for (const char* file : {"adapter_model.safetensors", "trainer.safetensors"})
      EXPECT_TRUE(bytes_of(whole, step, file) == bytes_of(cut, step, file)) << step << file;
  }
  EXPECT_FALSE(fs::exists(checkpoint_folder(cut, 7) + "/model.safetensors"));
  s.model = {{"start", "another"}};
  EXPECT_THROW(run(cut, s, 8, {.by_adapters = true}), Error);
}

// A run whose answers are never right: the checkpoints of the collapse are put aside.
TEST_F(RlStageTest, ACollapsedRunGoesOnFromBeforeTheCollapse) {
  TestFolder folder;
  std::string out = folder / "run";
  RlSettings s = settings("reinforce");
  s.groups = s.samples = 2;
  s.rollout.max_tokens = 1;  // no room for an answer
  try {
    run(out, s, 30, {.save_every = 5, .keep = 1});
    ADD_FAILURE() << "no collapse";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(),
                testing::HasSubstr("no answer was right, for 20 steps; no checkpoint is"));
  }
  EXPECT_TRUE(list_checkpoints(out).empty());
  EXPECT_TRUE(fs::exists(out + "/checkpoints/collapsed-00000015"));

  // The last checkpoint that drew no doubtful answers outlives those that did.
  fs::remove_all(out);
  s = settings("reinforce");
  s.groups = s.samples = 2;
  try {
    run(out, s, 30, {.save_every = 2, .keep = 1, .doubted_from = 6});
    ADD_FAILURE() << "no collapse";
  } catch (const Error& e) {
    EXPECT_EQ(e.fact(), "all is lost; the last good checkpoint is " + checkpoint_folder(out, 4));
  }
  EXPECT_THAT(list_checkpoints(out), testing::ElementsAre(4));
  EXPECT_TRUE(fs::exists(out + "/checkpoints/collapsed-00000010"));
  run(out, s, 30, {.save_every = 2, .keep = 1});
  EXPECT_EQ(list_checkpoints(out).back(), 30);
}

// --- bad input ---

TEST_F(RlStageTest, WhatDoesNotGoTogetherIsRefused) {
  auto refuses = [&](RlSettings s, const std::string& where) {
    try {
      RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
      ADD_FAILURE() << "not refused: " << where;
    } catch (const Error& e) {
      EXPECT_EQ(e.where(), where) << e.what();
    }
  };
  RlSettings s = settings("grpo");
  s.samples = 1;
  refuses(s, "--samples");
  s = settings("gspo");
  s.groups = 2;
  refuses(s, "--mini-batches");
  s = settings("grpo");
  s.rollout.max_tokens = 250;
  refuses(s, "--max-tokens");
  EXPECT_THROW(rl_algorithm("ppo"), Error);
}

TEST_F(RlStageTest, ATokenizerWithoutTheTemplatesMarkersIsRefused) {
  std::vector<std::string_view> text = {"parity 01"};
  BpeTrainerOptions names = deepseek_style_options(512);
  Tokenizer bare(train_characters(text, names.first));
  RolloutSampler sampler(*dev, *policy, bare, {.dtype = DType::kF32, .max_tokens = 16});
  try {
    sampler.prompt("parity 01");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("has no token <｜User｜>"));
  }
}

// One question, which counts how often its answers are scored.
class Counted : public Task {
 public:
  std::string name() const override { return "counted"; }
  std::string about() const override { return "one question"; }
  Levels levels() const override { return {1, 1, 1, "level"}; }
  TaskExample example(uint64_t, int) const override { return {"parity 000000", {}, {}}; }
  double score(const TaskExample&, std::string_view) const override {
    scored.fetch_add(1);
    return 0.5;
  }
  mutable std::atomic<int64_t> scored{0};
};

// Nothing is right, and every fourth check fails.
class FailingNowAndThen : public Counted {
 public:
  double score(const TaskExample& e, std::string_view answer) const override {
    Counted::score(e, answer);
    return 0;
  }
  int64_t checker_failures() const override { return scored / 4; }
};

TEST_F(RlStageTest, AFewFailedChecksHideNoCollapse) {
  FailingNowAndThen task;
  RlSettings s = settings("reinforce");
  s.groups = s.samples = 2;
  s.favoured = {{&task, 1, task.example(0, 1)}};
  s.favoured_share = 1;
  RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
  Trainer trainer(*dev, *policy, trainer_config());
  TrainerState state;
  std::optional<Error> collapse;
  testing::internal::CaptureStderr();
  for (; state.step < 25 && !collapse; ++state.step) {
    StepMetrics m;
    collapse = stage.step(trainer, state, 1e-3, m).collapse;
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("try easier levels"));
  EXPECT_EQ(stage.checker_failures(), state.step);
  ASSERT_TRUE(collapse);
  EXPECT_THAT(collapse->what(), testing::HasSubstr("no answer was right"));
}

TEST_F(RlStageTest, FavouredQuestionsComeAsOftenAsTheirShareSays) {
  Counted task;
  RlSettings s = settings("grpo");
  s.groups = 40;
  s.samples = 2;
  EXPECT_FALSE(RlStage(*dev, *policy, *start, tokenizer, s, trainer_config())
                   .settings()
                   .contains("favoured"));
  s.favoured = {{&task, 1, task.example(0, 1)}};
  for (double share : {0.0, 0.5, 1.0}) {
    s.favoured_share = share;
    task.scored = 0;
    RlStage stage(*dev, *policy, *start, tokenizer, s, trainer_config());
    Trainer trainer(*dev, *policy, trainer_config());
    StepMetrics m;
    stage.step(trainer, TrainerState(), 0.0, m);
    EXPECT_EQ(stage.settings()["favoured_share"], share);
    EXPECT_NEAR(static_cast<double>(task.scored), share * 80, share == 0.5 ? 24 : 0) << share;
  }
}

}  // namespace
}  // namespace wels
