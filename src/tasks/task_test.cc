#include "tasks/task.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "tasks/answer.h"

namespace wels {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string error_of(const std::string& spec) {
  try {
    TaskMixture mixture(spec);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

// A few levels from the lowest to the highest.
std::set<int> some_levels(const Task& task) {
  Task::Levels l = task.levels();
  return {l.lowest, std::min(l.lowest + 1, l.highest), l.usual, (l.usual + l.highest) / 2,
          l.highest};
}

TEST(AllTasks, HaveNamesDescriptionsAndOrderedLevels) {
  std::set<std::string> names;
  for (const auto& task : all_tasks()) {
    SCOPED_TRACE(task->name());
    EXPECT_TRUE(names.insert(task->name()).second);
    EXPECT_EQ(task->name().find_first_of(" .:*,@/-"), std::string::npos);
    EXPECT_FALSE(task->about().empty());
    Task::Levels l = task->levels();
    EXPECT_LE(l.lowest, l.usual);
    EXPECT_LE(l.usual, l.highest);
    EXPECT_FALSE(l.unit.empty());
    EXPECT_EQ(task->checker_failures(), 0);
  }
}

TEST(AllTasks, GiveTheSameExampleForTheSameSeedAndLevel) {
  auto one = all_tasks(), other = all_tasks();
  for (size_t t = 0; t < one.size(); ++t) {
    for (int level : some_levels(*one[t])) {
      for (uint64_t seed : {0ull, 7ull, ~0ull}) {
        TaskExample a = one[t]->example(seed, level), b = other[t]->example(seed, level);
        EXPECT_EQ(a.question, b.question);
        EXPECT_EQ(a.answer, b.answer);
        EXPECT_EQ(a.chain, b.chain);
        EXPECT_EQ(a.metadata, b.metadata);
      }
    }
  }
}

TEST(AllTasks, ScoreTheirOwnAnswerOneInEveryFormAndOthersZero) {
  for (const auto& task : all_tasks()) {
    SCOPED_TRACE(task->name());
    for (int level : some_levels(*task)) {
      for (uint64_t seed = 0; seed < 30; ++seed) {
        TaskExample e = task->example(seed, level);
        SCOPED_TRACE(e.question);
        ASSERT_FALSE(e.question.empty());
        ASSERT_FALSE(e.answer.empty());
        ASSERT_FALSE(e.chain.empty());
        EXPECT_EQ(task->score(e, e.answer), 1);
        EXPECT_EQ(task->score(e, " \n" + e.answer + "\n"), 1);
        EXPECT_EQ(task->score(e, "It is \\boxed{" + e.answer + "}."), 1);
        EXPECT_EQ(task->score(e, "#### " + e.answer), 1);
        EXPECT_EQ(task->score(e, "<answer>" + e.answer + "</answer>"), 1);
        for (std::string wrong : {"", "?", "-1", "none", "\\boxed{}", "####", "<answer></answer>",
                                  "\xff\xfe", "((((", "1/0", "9999999999999999999999999999",
                                  "a b c d e f g h i j k l m n o p q r s t u v w x y z"}) {
          EXPECT_EQ(task->score(e, wrong), 0) << wrong;
        }
        EXPECT_EQ(task->score(e, e.answer + e.answer + "1"), 0);
        EXPECT_EQ(task->score(e, std::string(5000, '(')), 0);
      }
    }
  }
}

TEST(AllTasks, RarelyTakeTheAnswerToAnotherQuestionForTheirOwn) {
  for (const auto& task : all_tasks()) {
    SCOPED_TRACE(task->name());
    int level = task->levels().usual, right = 0, same = 0;
    constexpr int kPairs = 300;
    for (uint64_t seed = 0; seed < kPairs; ++seed) {
      TaskExample a = task->example(seed, level), b = task->example(seed + kPairs, level);
      same += a.answer == b.answer;
      right += task->score(a, b.answer) == 1;
    }
    EXPECT_LE(same, kPairs * 0.6);
    // A way through one maze may be one through another.
    EXPECT_LE(right, same + kPairs / 8);
  }
}

TEST(AllTasks, AskVariousQuestions) {
  for (const auto& task : all_tasks()) {
    SCOPED_TRACE(task->name());
    std::set<std::string> questions;
    for (uint64_t seed = 0; seed < 500; ++seed)
      questions.insert(task->example(seed, task->levels().usual).question);
    EXPECT_GE(questions.size(), 450u);
  }
}

// What a model of a small vocabulary has to know, and what a chat template must not meet.
TEST(AllTasks, WriteNoMarkersAndNoWhiteSpaceAtTheEnds) {
  for (const auto& task : all_tasks()) {
    SCOPED_TRACE(task->name());
    for (int level : some_levels(*task)) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        TaskExample e = task->example(seed, level);
        for (const std::string& text : {e.question, e.answer, e.chain}) {
          EXPECT_EQ(text.find("think>"), std::string::npos);
          EXPECT_EQ(text.find_first_not_of(" \n"), 0u) << text;
          EXPECT_EQ(text.find_last_not_of(" \n"), text.size() - 1) << text;
          EXPECT_EQ(text.find("  "), std::string::npos) << text;
        }
      }
    }
  }
}

TEST(AllTasks, GrowWithTheLevel) {
  for (const auto& task : all_tasks()) {
    SCOPED_TRACE(task->name());
    auto mean_length = [&](int level) {
      double sum = 0;
      for (uint64_t seed = 0; seed < 50; ++seed) {
        TaskExample e = task->example(seed, level);
        sum += static_cast<double>(e.question.size() + e.chain.size());
      }
      return sum / 50;
    };
    Task::Levels l = task->levels();
    // Numbers of make24 get larger, not more: its searches have about the same length.
    double most = task->name() == "make24" ? 1.2 : 1;
    EXPECT_LE(mean_length(l.lowest), most * mean_length(l.usual));
    EXPECT_LE(mean_length(l.usual), most * mean_length(l.highest));
  }
}

TEST(HeldOut, IsATenthOfTheQuestions) {
  int held = 0;
  for (int i = 0; i < 20000; ++i) held += is_held_out("question " + std::to_string(i));
  EXPECT_NEAR(held, 2000, 5 * std::sqrt(20000 * 0.09));
}

TEST(TaskMixture, KeepsHeldOutQuestionsOutOfTraining) {
  for (const auto& task : all_tasks()) {
    SCOPED_TRACE(task->name());
    TaskMixture mixture(task->name());
    for (int64_t i = 0; i < 60; ++i) {
      EXPECT_FALSE(is_held_out(mixture.item(1, i, TaskSplit::kTrain).example.question));
      EXPECT_TRUE(is_held_out(mixture.item(1, i, TaskSplit::kHeldOut).example.question));
    }
  }
}

TEST(TaskMixture, GivesTheSameItemForTheSameNumberInAnyOrder) {
  TaskMixture mixture("parity:5-30,addition:2-9*3"), again("parity:5-30,addition:2-9*3");
  std::vector<std::string> forward;
  for (int64_t i = 0; i < 50; ++i)
    forward.push_back(mixture.item(3, i, TaskSplit::kTrain).example.question);
  for (int64_t i = 50; i-- > 0;)
    EXPECT_EQ(again.item(3, i, TaskSplit::kTrain).example.question,
              forward[static_cast<size_t>(i)]);
  EXPECT_NE(mixture.item(4, 0, TaskSplit::kTrain).example.question, forward[0]);
  std::set<std::string> different(forward.begin(), forward.end());
  EXPECT_GE(different.size(), 48u);
}

TEST(TaskMixture, TakesTasksByShareAndLevelsEvenly) {
  TaskMixture mixture("parity:10-13*3, addition:7");
  ASSERT_EQ(mixture.parts().size(), 2u);
  std::map<std::pair<std::string, int>, int> counts;
  constexpr int kItems = 4000;
  for (int64_t i = 0; i < kItems; ++i) {
    TaskMixture::Item item = mixture.item(5, i, TaskSplit::kTrain);
    ++counts[{item.task->name(), item.level}];
    EXPECT_EQ(item.task->score(item.example, item.example.answer), 1);
  }
  ASSERT_EQ(counts.size(), 5u);
  EXPECT_NEAR((counts[{"addition", 7}]), kItems / 4, 5 * std::sqrt(kItems * 0.1875));
  for (int level = 10; level <= 13; ++level)
    EXPECT_NEAR((counts[{"parity", level}]), kItems * 3 / 16, 5 * std::sqrt(kItems * 0.15));
}

TEST(TaskMixture, TakesTheUsualLevelWhereNoneIsSaid) {
  TaskMixture mixture("parity");
  EXPECT_EQ(mixture.parts()[0].from, mixture.parts()[0].task->levels().usual);
  EXPECT_EQ(mixture.parts()[0].to, mixture.parts()[0].task->levels().usual);
  EXPECT_EQ(mixture.spec(), "parity");
}

TEST(TaskMixture, SaysWhichLevelHasTooFewQuestions) {
  TaskMixture mixture("parity:1");  // two questions
  int thrown = 0;
  for (TaskSplit split : {TaskSplit::kTrain, TaskSplit::kHeldOut}) {
    try {
      mixture.item(1, 0, split);
    } catch (const Error& e) {
      ++thrown;
      EXPECT_THAT(e.what(), AllOf(HasSubstr("parity: none of 1000 examples of level 1 to 1"),
                                  HasSubstr("use a higher level")));
    }
  }
  EXPECT_GE(thrown, is_held_out("parity 0") == is_held_out("parity 1") ? 1 : 0);
  // A range that has such a level gives what the others have.
  EXPECT_TRUE(
      is_held_out(TaskMixture("parity:1-9").item(1, 0, TaskSplit::kHeldOut).example.question));
}

TEST(TaskMixture, NamesThePartOfASpecThatIsWrong) {
  EXPECT_THAT(error_of("parity,typo:3"),
              AllOf(HasSubstr("tasks \"parity,typo:3\": there is no task \"typo\""),
                    HasSubstr("addition")));
  EXPECT_THAT(error_of(""), HasSubstr("a part is empty"));
  EXPECT_THAT(error_of("parity,"), HasSubstr("a part is empty"));
  EXPECT_THAT(error_of("parity:x"), HasSubstr("\"x\" is no level"));
  EXPECT_THAT(error_of("parity:"), HasSubstr("\"\" is no level"));
  EXPECT_THAT(error_of("parity:3-"), HasSubstr("\"3-\" is no level"));
  EXPECT_THAT(error_of("parity:0"), HasSubstr("parity has levels 1 to 64 (bits), not 0"));
  EXPECT_THAT(error_of("parity:65*2"), HasSubstr("parity has levels 1 to 64 (bits), not 65"));
  EXPECT_THAT(error_of("parity:9-3"), HasSubstr("not 9-3"));
  EXPECT_THAT(error_of("parity:-3"), HasSubstr("not -3"));
  EXPECT_THAT(error_of("parity:99999999999"), HasSubstr("is no level"));
  EXPECT_THAT(error_of("parity*0"), HasSubstr("the share \"0\""));
  EXPECT_THAT(error_of("parity*-1"), HasSubstr("the share \"-1\""));
  EXPECT_THAT(error_of("parity*nan"), HasSubstr("the share \"nan\""));
  EXPECT_THAT(error_of("parity*inf"), HasSubstr("the share \"inf\""));
  EXPECT_THAT(error_of("parity*2x"), HasSubstr("the share \"2x\""));
  EXPECT_THAT(error_of("missing.jsonl"), HasSubstr("missing.jsonl"));
}

}  // namespace
}  // namespace wels
