#include <gmock/gmock.h>

#include "base/error.h"
#include "base/file.h"
#include "base/test_folder.h"
#include "rl/collapse.h"
#include "rl/curriculum.h"
#include "rl/evaluation.h"
#include "rl/reward.h"
#include "rl/update.h"

namespace wels {
namespace {

// --- packing ---

TEST(PackSequences, EveryTokenIsTheTargetOfTheRowBeforeItAndPromptsAreNone) {
  std::vector<int32_t> prompt = {1, 2, 3}, answer = {4, 5}, long_answer = {6, 7, 8, 9};
  std::vector<TrainSequence> s;
  s.push_back({.prompt = prompt, .tokens = answer, .sampled_logp = {}});
  s.push_back({.prompt = prompt, .tokens = long_answer, .sampled_logp = {}});
  PackedSequences packed = pack_sequences(s, std::vector<size_t>{0, 1}, 100);
  ASSERT_EQ(packed.micro_batches.size(), size_t{1});
  const MicroBatch& mb = packed.micro_batches[0];
  EXPECT_THAT(mb.batch.tokens, testing::ElementsAre(1, 2, 3, 6, 7, 8, 1, 2, 3, 4));
  EXPECT_THAT(mb.targets, testing::ElementsAre(-1, -1, 6, 7, 8, 9, -1, -1, 4, 5));
  EXPECT_THAT(packed.sequence[0], testing::ElementsAre(1, 0));
  EXPECT_EQ(packed.rows, 10);
  std::vector<std::vector<double>> seen(2);
  each_sequence_logp(
      packed, s,
      [](const MicroBatch& b) {
        std::vector<double> out;
        for (int32_t t : b.targets) out.push_back(-t);
        return out;
      },
      [&](size_t i, std::span<const double> logp) { seen[i].assign(logp.begin(), logp.end()); });
  EXPECT_THAT(seen[0], testing::ElementsAre(-4, -5));
  EXPECT_THAT(seen[1], testing::ElementsAre(-6, -7, -8, -9));
}

TEST(PackSequences, BestFitLongestFirstWithinTheLimitAndALongerOneAlone) {
  std::vector<int32_t> prompt = {1}, tokens(40, 2);
  std::vector<TrainSequence> s;
  std::vector<size_t> lengths = {3, 7, 5, 30, 4, 2}, chosen;  // rows, with a prompt of one
  for (size_t n : lengths) {
    chosen.push_back(s.size());
    s.push_back({.prompt = prompt, .tokens = std::span(tokens).first(n), .sampled_logp = {}});
  }
  PackedSequences packed = pack_sequences(s, chosen, 10);
  EXPECT_THAT(packed.sequence,
              testing::ElementsAre(testing::ElementsAre(3), testing::ElementsAre(1, 0),
                                   testing::ElementsAre(2, 4), testing::ElementsAre(5)));
  EXPECT_EQ(packed.rows, 51);
}

TEST(Mismatch, HasABoundThatGrowsWithTheLogits) {
  EXPECT_EQ(mismatch_bound(true, 1), 1e-5);
  EXPECT_EQ(mismatch_bound(true, 2), 1e-5);
  EXPECT_EQ(mismatch_bound(true, 0.5), 2e-5);
  EXPECT_EQ(mismatch_bound(false, 1), 0.5);
}

// --- rewards ---

TEST(Reward, TheOverlongPenaltyGrowsThroughItsZone) {
  EXPECT_EQ(overlong_penalty(80, 100, 20), 0);
  EXPECT_EQ(overlong_penalty(90, 100, 20), -0.5);
  EXPECT_EQ(overlong_penalty(100, 100, 20), -1);
  EXPECT_EQ(overlong_penalty(140, 100, 20), -1);
  EXPECT_EQ(overlong_penalty(100, 100, 0), 0);
}

TEST(Reward, IsTheWeightedSumAndWhatDidNotEndIsNotRight) {
  TaskMixture tasks("parity:4");
  TaskMixture::Item item = tasks.item(1, 0, TaskSplit::kTrain);
  auto completion = [&](const std::string& text, bool ended) {
    Rollout r;
    r.tokens.assign(10, 1);
    r.ended = ended;
    r.parts = parse_completion(text, true);
    return r;
  };
  std::vector<Rollout> rollouts = {completion("x</think>" + item.example.answer, true),
                                   completion("x</think>" + item.example.answer, false),
                                   completion("x</think>no", true), completion("no", true)};
  std::vector<Reward> r =
      score_rollouts(std::vector{item}, rollouts, 10,
                     {.accuracy = 2, .format = 0.5, .language = 0.25, .overlong_zone = 2});
  EXPECT_DOUBLE_EQ(r[0].total, 2 + 0.5 + 0.25 - 1);
  EXPECT_DOUBLE_EQ(r[1].total, 0.25 - 1);
  EXPECT_DOUBLE_EQ(r[2].total, 0.5 + 0.25 - 1);
  EXPECT_DOUBLE_EQ(r[3].total, 0.25 - 1);
}

TEST(Reward, AThoughtWithoutWordsIsNoBetterForItsLanguage) {
  TaskMixture tasks("parity:4");
  std::vector<TaskMixture::Item> items = {tasks.item(1, 0, TaskSplit::kTrain),
                                          tasks.item(1, 1, TaskSplit::kTrain)};
  std::vector<Rollout> rollouts(8);
  const char* thoughts[] = {"we add", "we 加", "1 0 1", "", "1 1", "", "0", "x = 1"};
  for (size_t i = 0; i < 8; ++i) rollouts[i].parts.thought = thoughts[i];
  std::vector<Reward> r = score_rollouts(items, rollouts, 10, {.accuracy = 1, .language = 0.5});
  double want[] = {1, 0.5, 0.75, 0.75, 0, 0, 0, 0};  // without words: the siblings' mean
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_DOUBLE_EQ(r[i].language, want[i]) << i;
    EXPECT_DOUBLE_EQ(r[i].total, 0.5 * want[i]) << i;
  }
}

TEST(Reward, AThoughtWithoutWordsAmongEqualOnesIsEqualToTheBit) {
  TaskMixture tasks("parity:4");
  std::vector<TaskMixture::Item> item = {tasks.item(1, 0, TaskSplit::kTrain)};
  for (size_t latin = 1; latin < 20; ++latin) {
    std::string thought = "加";
    for (size_t i = 0; i < latin; ++i) thought += " we";
    for (size_t n = 2; n < 20; ++n) {
      std::vector<Rollout> rollouts(n + 1);
      for (size_t i = 0; i < n; ++i) rollouts[i].parts.thought = thought;
      std::vector<Reward> r = score_rollouts(item, rollouts, 10, {.accuracy = 1, .language = 0.5});
      EXPECT_EQ(r[n].language, r[0].language) << latin << " of " << n;
      EXPECT_EQ(r[n].total, r[0].total);
    }
  }
}

TEST(Reward, ACoinIsFairAndFallsTheSameWayAgain) {
  TaskMixture tasks("parity:8");
  std::vector<TaskMixture::Item> items;
  for (int64_t i = 0; i < 50; ++i) items.push_back(tasks.item(1, i, TaskSplit::kTrain));
  std::vector<Rollout> rollouts(50 * 16);
  RewardSettings coin{.accuracy = 0, .chance = 1};
  std::vector<Reward> once = score_rollouts(items, rollouts, 10, coin),
                      again = score_rollouts(items, rollouts, 10, coin);
  double heads = 0;
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_TRUE(once[i].total == 0 || once[i].total == 1);
    EXPECT_EQ(once[i].total, again[i].total);
    heads += once[i].total;
  }
  EXPECT_NEAR(heads / 800, 0.5, 0.08);  // 4.5 standard deviations
}

TEST(AnswerStats, AreMeansAndAQuantile) {
  std::vector<Rollout> rollouts(4);
  for (size_t i = 0; i < 4; ++i) rollouts[i].tokens.assign(i + 1, 0);
  rollouts[3].parts.thought = "so";
  rollouts[2].parts.thought = "\n";
  rollouts[0].ended = true;
  AnswerStats s = answer_stats(rollouts, std::vector<double>{1, 0, 0.5, 1});
  EXPECT_EQ(s.accuracy, 0.625);
  EXPECT_EQ(s.length_mean, 2.5);
  EXPECT_EQ(s.length_p95, 4);
  EXPECT_EQ(s.long_share, 0.25);
  EXPECT_EQ(s.ended, 0.25);
  EXPECT_EQ(s.one_language, 1);  // of the one thought
  rollouts[1].parts.thought = "加 add 减 double";
  EXPECT_EQ(answer_stats(rollouts, std::vector<double>{1, 0, 0.5, 1}).one_language, 0.75);
  EXPECT_EQ(quantile({5, 1, 3, 2, 4}, 0.5), 3);
  EXPECT_EQ(quantile({}, 0.5), 0);
}

TEST(PartNames, TellPartsOfOneTaskApart) {
  EXPECT_THAT(part_names(TaskMixture("parity:6,addition:2-3")),
              testing::ElementsAre("parity", "addition"));
  TaskMixture tasks("parity:6,parity:3-4,addition,parity:6*2");
  EXPECT_THAT(part_names(tasks),
              testing::ElementsAre("parity:6", "parity:3-4", "addition", "parity:6#2"));
  TaskMixture::Item item = tasks.item(1, 0, TaskSplit::kTrain);
  EXPECT_EQ(tasks.parts()[part_of(tasks, item)].task.get(), item.task);
  EXPECT_EQ(part_of(TaskMixture("parity"), item), size_t{1});
}

// --- curriculum ---

TEST(Curriculum, NarrowsEveryRangeAndKeepsShares) {
  TaskMixture tasks("parity:4-20*3,addition:8");
  EXPECT_EQ(narrowed_spec(tasks, 0, 5), "parity:4-4*3,addition:8");
  EXPECT_EQ(narrowed_spec(tasks, 2, 5), "parity:4-12*3,addition:8");
  EXPECT_EQ(narrowed_spec(tasks, 4, 5), "parity:4-20*3,addition:8");
}

TEST(Curriculum, KnowsTheQuotesOfCommands) {
  TestFolder folder;
  std::string file = folder.file("quotes.jsonl", "{\"question\": \"q?\", \"answer\": \"A\"}\n");
  std::string judged = file + "@command=judge 'a,b:1-2*3'";
  EXPECT_EQ(narrowed_spec(TaskMixture(judged + ", parity:4-6"), 0, 3), judged + ",parity:4-4");
  EXPECT_EQ(narrowed_spec(TaskMixture("parity:4-6," + judged), 2, 3), "parity:4-6," + judged);
}

TEST(Curriculum, ClimbsWhereMostIsRightAndIsRestored) {
  Curriculum c("parity:4-6", true);
  EXPECT_EQ(c.rungs(), 3);
  for (int i = 0; i < 30; ++i) c.observe(0.7);
  EXPECT_EQ(c.rung(), 0);
  int steps = 0;
  for (; c.rung() == 0; ++steps) c.observe(1);
  EXPECT_LT(steps, 5);
  c.observe(0.9);
  Curriculum again("parity:4-6", true);
  again.restore(c.counters());
  EXPECT_EQ(again.rung(), 1);
  EXPECT_EQ(again.tasks().spec(), "parity:4-5");
  EXPECT_EQ(again.counters(), c.counters());
  // Its tasks stay, since their checkers cannot be made behind a signal.
  const TaskMixture* tasks = &again.tasks();
  again.restore(c.counters());
  EXPECT_EQ(&again.tasks(), tasks);
  Curriculum flat("parity:4-6", false);
  for (int i = 0; i < 30; ++i) flat.observe(1);
  EXPECT_EQ(flat.tasks().spec(), "parity:4-6");
}

// --- collapse ---

TEST(Repetition, IsAShortPatternUpToTheEnd) {
  std::vector<int32_t> t;
  for (int i = 0; i < 30; ++i) t.push_back(100 + i);
  for (int i = 0; i < 60; ++i) t.push_back(i % 5);
  EXPECT_TRUE(is_repetitive(t));
  t[80] = 77;
  EXPECT_FALSE(is_repetitive(t));
  EXPECT_FALSE(is_repetitive(std::vector<int32_t>(40, 1)));
}

TEST(CollapseGuard, StopsAfterTheStatedNumberOfStepsAndForgetsWhenItGetsBetter) {
  auto survives = [](CollapseGuard& g, CollapseGuard::Step s, int steps) {
    for (int i = 0; i < steps; ++i, ++s.step) {
      if (g.observe(s)) return i;
    }
    return steps;
  };
  CollapseGuard::Step good{.step = 1, .best_score = 1, .entropy = 0.5, .repetitive = 0.1};
  CollapseGuard::Step wrong = good, dead = good, repeats = good;
  wrong.best_score = dead.best_score = 0;
  dead.entropy = 0.001;
  repeats.repetitive = 0.9;
  CollapseGuard g;
  EXPECT_EQ(survives(g, good, 100), 100);
  EXPECT_EQ(survives(g, wrong, 19), 19);
  EXPECT_EQ(survives(g, good, 1), 1);
  EXPECT_EQ(survives(g, wrong, 100), 19);
  CollapseGuard h;
  EXPECT_EQ(survives(h, dead, 3), 3);
  EXPECT_EQ(h.doubtful_steps(), 3);
  CollapseGuard resumed;
  resumed.restore(h.counters());
  EXPECT_EQ(survives(resumed, dead, 100), 1);
  CollapseGuard k;
  EXPECT_EQ(survives(k, repeats, 100), 4);
  // All right and certain is no collapse.
  CollapseGuard sure;
  dead.best_score = 1;
  EXPECT_EQ(survives(sure, dead, 100), 100);
  EXPECT_EQ(sure.doubtful_steps(), 0);
}

// A checker that fails says nothing of the policy; repetition needs no checker.
TEST(CollapseGuard, StepsThatWereNotCheckedDoNotCount) {
  CollapseGuard g;
  CollapseGuard::Step dead{.step = 1, .best_score = 0, .entropy = 0.001};
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(g.observe(dead));
  CollapseGuard::Step unchecked = dead;
  unchecked.checked = false;
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(g.observe(unchecked));
  EXPECT_EQ(g.doubtful_steps(), 4);
  std::optional<Error> collapse = g.observe(dead);
  ASSERT_TRUE(collapse);
  EXPECT_EQ(collapse->where(), "training");
  unchecked.repetitive = 0.9;
  CollapseGuard h;
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(h.observe(unchecked));
  EXPECT_TRUE(h.observe(unchecked));
}

}  // namespace
}  // namespace wels
