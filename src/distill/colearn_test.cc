// The rules by hand; whole runs with a small pair: what phases cost, what they explore, a phase C
// without any right answer, rollback, and a resumed run.
#include "distill/colearn.h"

#include <gmock/gmock.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/json_lines.h"
#include "distill/budget_stage.h"
#include "rl/rl_base_test.h"
#include "text/chat_training.h"

namespace wels {
namespace {

using nlohmann::json;

TEST(ColearnGate, WorseIsMoreThanAStandardError) {
  // Of 100 questions half right: the error is 0.05.
  EXPECT_FALSE(is_worse(0.5, 0.45, 100));
  EXPECT_TRUE(is_worse(0.5, 0.4499, 100));
  EXPECT_FALSE(is_worse(0.5, 0.9, 100));
  // Where all were right an error of 0.01 / sqrt(n) remains.
  EXPECT_FALSE(is_worse(1, 0.9991, 100));
  EXPECT_TRUE(is_worse(1, 0.998, 100));
}

TEST(FavouredShare, GivesAFoundQuestionSoManyTimesTheWeightOfAnother) {
  EXPECT_EQ(favoured_share(0, 64, 4), 0);
  EXPECT_EQ(favoured_share(16, 64, 1), 0);
  // 16 of 64 found: all of them once (1), these three times more (0.75).
  double share = favoured_share(16, 64, 4);
  EXPECT_NEAR(share, 0.75 / 1.75, 1e-12);
  double found = share / 16 + (1 - share) / 64, other = (1 - share) / 64;
  EXPECT_NEAR(found / other, 4, 1e-12);
}

TEST(BetweenQuantiles, KeepsTheMiddleOfTheLossesByNumber) {
  std::vector<double> losses = {5, 1, 4, 2, 3, 10, 9, 8, 7, 6};
  EXPECT_EQ(between_quantiles(losses, 100, 0.4, 0.9),
            (std::vector<int64_t>{100, 102, 106, 107, 108, 109}));
}

class Examples : public ExampleSource {
 public:
  Examples(const TaskMixture& tasks, const Tokenizer& tokenizer, TaskSplit split)
      : tasks_(tasks), tokenizer_(tokenizer), split_(split) {}
  int64_t size() const override { return -1; }
  uint64_t hash() const override { return 1; }
  TrainingTokens example(int64_t i) const override {
    TaskExample e = tasks_.item(7, i, split_).example;
    std::vector<ChatMessage> messages(2);
    messages[0].role = "user";
    messages[0].content = e.question;
    messages[1].role = "assistant";
    messages[1].content = "<think>" + (i % 4 == 0 ? e.chain : "") + "</think>" + e.answer;
    return training_tokens(ChatTemplate::kDeepSeekV31, messages, tokenizer_);
  }

 private:
  const TaskMixture& tasks_;
  const Tokenizer& tokenizer_;
  TaskSplit split_;
};

struct ColearnTest : testing::Test {
  std::unique_ptr<Device> dev = make_device("cpu");
  Tokenizer tokenizer = Tokenizer::load(test_base_folder());
  std::string folder = testing::TempDir() + "/colearn_" + std::to_string(::getpid());
  std::map<std::string, std::string> files = {
      {"tokenizer.json", read_file(test_base_folder() + "/tokenizer.json")}};
  TaskMixture tasks{kTestTask};
  Examples train{tasks, tokenizer, TaskSplit::kTrain},
      held_out{tasks, tokenizer, TaskSplit::kHeldOut};
  ColearnTest() { std::filesystem::remove_all(folder); }
  ~ColearnTest() override { std::filesystem::remove_all(folder); }

  ColearnSettings settings(const std::string& name) const {
    ColearnSettings s;
    s.out = folder + "/" + name;
    s.tasks = kTestTask;
    s.rounds = 1;
    s.round_flops = 3e9;
    s.pool = 32;
    s.explore = {.questions = 8, .tries = 4, .large_tries = 1};
    s.rl_groups = s.rl_samples = 4;
    s.eval_items = 32;
    s.sft.batch = 16;
    s.sft.longest = 64;
    s.sft.micro_batch_tokens = 512;
    s.sft.eval_examples = 16;
    s.sft.quiet = true;
    s.sft.trainer.dtype = DType::kF32;
    s.sft.trainer.optimizer.weight_decay = 0;
    s.rollout = {.dtype = DType::kF32, .max_tokens = 16};
    return s;
  }
  ColearnResult run(
      const ColearnSettings& s,
      const std::function<void(const ColearnResult&)>& report = [](auto&) {}) {
    const std::string models[2] = {test_base_folder(), test_base_folder()};
    return colearn(*dev, models, tokenizer, files, train, held_out, s, report);
  }
};

TEST_F(ColearnTest, ASignalAtTheEndOfAPhaseStopsTheRunBehindItAndTheSameCallGoesOn) {
  ColearnSettings s = settings("signal"), other = settings("whole");
  s.c = other.c = false;
  ColearnResult r = run(s, [](const ColearnResult&) { std::raise(SIGINT); });
  EXPECT_TRUE(r.stopped);
  ASSERT_EQ(r.phases.size(), 1u);
  r = run(s);
  EXPECT_FALSE(r.stopped);
  ColearnResult whole = run(other);
  ASSERT_EQ(r.phases.size(), 2u);
  EXPECT_EQ(r.phases[1].after.nats[1], whole.phases[1].after.nats[1]);
}

TEST_F(ColearnTest, TheStepThatSpendsTheAllowanceIsTheLast) {
  ColearnSettings s = settings("steps");
  s.c = s.a = s.b1 = s.b2 = s.b3 = false;
  ColearnResult r = run(s);
  int64_t lines = 0;
  double spent = 0;
  read_json_lines({s.out + "/round-01-A/metrics.jsonl"}, [&](std::string_view line, const auto&) {
    json m = json::parse(line);
    EXPECT_GT(m.at("loss"), 0);
    EXPECT_LT(spent, s.round_flops);
    spent = m.at("flops_spent");
    ++lines;
    return true;
  });
  EXPECT_GT(lines, 1);
  EXPECT_GE(spent, s.round_flops);
  EXPECT_EQ(r.phases[0].flops, spent);
  EXPECT_EQ(r.model[0], checkpoint_folder(s.out + "/round-01-A", lines));
}

TEST(BudgetStageTest, KnowsHowManyStepsAreLeft) {
  struct Free : Stage {
    json settings() const override { return json::object(); }
    StageStep step(Trainer&, const TrainerState&, double, StepMetrics&) override { return {}; }
    double validate(Trainer&, StepMetrics*, bool) override { return 0; }
    void rehearse(Trainer&) override {}
  } inner;
  BudgetStage stage(
      inner, [](const StageStep&, const StepMetrics&) { return 4.0; }, 10, 0);
  EXPECT_EQ(stage.steps_left(), -1);  // no step has said yet what one costs
  stage.restore({{"spent", 4.0}, {"inner", json::object()}, {"cost_of_step", 4.0}});
  EXPECT_EQ(stage.steps_left(), 2);
  EXPECT_EQ(stage.counters()["cost_of_step"], 4.0);
  stage.restore({{"spent", 12.0}, {"inner", json::object()}});
  EXPECT_EQ(stage.steps_left(), 0);
}

TEST_F(ColearnTest, EveryModelSpendsItsAllowanceAndAStepMoreAtMost) {
  ColearnSettings s = settings("costs");
  ColearnResult r = run(s);
  ASSERT_EQ(r.phases.size(), 4u);
  double sum[2] = {0, 0};
  for (const ColearnPhase& p : r.phases) {
    double share = p.name[0] == 'C' ? s.rl_share : 1 - s.rl_share;
    EXPECT_GE(p.flops, share * s.round_flops) << p.name;
    EXPECT_LT(p.flops, share * s.round_flops + 2e9) << p.name;
    EXPECT_EQ(p.large, p.name == "B" || p.name == "C-large");
    sum[p.large ? 1 : 0] += p.flops;
  }
  for (int i : {0, 1}) EXPECT_DOUBLE_EQ(r.flops[i], sum[i]);
}

TEST_F(ColearnTest, QuestionsThatTheSmallOneAloneAnsweredAreKeptForTheLargeOnesC) {
  ColearnSettings s = settings("explores");
  s.explore.questions = 24;
  ColearnResult r = run(s);
  const ColearnPhase &b = r.phases[1], &c = r.phases[3];
  ASSERT_EQ(b.name, "B");
  // One try of the large one is wrong in places where four tries of the small one are not.
  ASSERT_GT(b.explored, 0);
  EXPECT_EQ(static_cast<int64_t>(b.solved.size()), b.explored);
  for (int64_t i : b.solved) EXPECT_TRUE(i >= 0 && i < 24);
  ASSERT_EQ(c.name, "C-large");
  // The stage's settings are in its checkpoint: it was given these questions.
  bool found = false;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(s.out + "/round-01-C-large"))
    if (entry.path().filename() == "trainer.json") {
      nlohmann::json j = nlohmann::json::parse(read_file(entry.path().string()));
      found = found || j.dump().find("\"favoured\"") != std::string::npos;
    }
  EXPECT_TRUE(found);
}

TEST_F(ColearnTest, APhaseWithoutARightAnswerIsUndoneAndTheRunGoesOn) {
  ColearnSettings s = settings("unsolved");
  s.a = s.b1 = s.b2 = s.b3 = false;
  s.rollout.max_tokens = 1;  // nothing can be said in one token
  s.round_flops = 4e11;      // many more steps than the guard lasts
  s.rl_share = 0.99;
  s.rl_groups = s.rl_samples = 2;
  ColearnResult r = run(s);
  ASSERT_EQ(r.phases.size(), 4u);
  for (const ColearnPhase& p : r.phases) {
    if (p.name[0] != 'C') continue;
    EXPECT_FALSE(p.kept) << p.name;
    EXPECT_THAT(p.trouble, testing::HasSubstr("no answer was right")) << p.name;
    EXPECT_GT(p.flops, 0);
    EXPECT_LT(p.flops, 0.99 * s.round_flops);
    // The model of before goes on.
    EXPECT_EQ(r.model[p.large ? 1 : 0].find("round-01-C"), std::string::npos);
  }
  // The state says it all: the same again computes nothing and has the same result.
  ColearnResult again = run(s);
  ASSERT_EQ(again.phases.size(), 4u);
  EXPECT_EQ(again.phases[2].trouble, r.phases[2].trouble);
  EXPECT_EQ(again.model[1], r.model[1]);
}

TEST_F(ColearnTest, AModelThatBecameWorseIsPutBackAndItsChannelHalved) {
  ColearnSettings s = settings("rollback");
  s.c = false;
  s.lambda = 0.5;
  s.lr_small = s.lr_large = 0.5;  // destroys whatever it trains
  ColearnResult r = run(s);
  ASSERT_EQ(r.phases.size(), 2u);
  for (const ColearnPhase& p : r.phases) {
    EXPECT_FALSE(p.kept) << p.name;
    EXPECT_EQ(p.after.accuracy[p.large], r.before.accuracy[p.large]);
  }
  for (int i : {0, 1}) EXPECT_EQ(r.model[i], test_base_folder());
  nlohmann::json state = nlohmann::json::parse(read_file(s.out + "/state.json"));
  EXPECT_EQ(state["lambda"], 0.25);
  EXPECT_EQ(state["weight_scale"], 0.5);
}

}  // namespace
}  // namespace wels
