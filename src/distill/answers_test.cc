#include "distill/answers.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/signal.h"
#include "base/test_folder.h"
#include "data/chat_record.h"
#include "data/json_lines.h"

namespace wels {
namespace {

// Answers parity right in its second and third try, the third like the second; asked() counts.
struct Scripted : AnswerSource {
  int64_t asked = 0, fail_at = -1, refuse = -1;
  bool journaled = false;
  std::string about() const override { return "scripted"; }
  std::vector<std::vector<GivenAnswer>> ask(std::span<const std::string> questions, int64_t first,
                                            int64_t tries, AnswerJournal& journal) override {
    if (first == fail_at) throw Error("scripted", "failed");
    if (journaled) {
      for (int64_t q = 0; q < static_cast<int64_t>(questions.size()); ++q) {
        if (q == 2) throw Error("scripted", "failed after two questions");
        const std::string& text = questions[static_cast<size_t>(q)];
        if (!journal.find(q, text, 0))
          journal.add(q, text, 0, {"<think>ü</think>\"\n", "a", true, 3});
      }
    }
    asked += static_cast<int64_t>(questions.size());
    GivenAnswer refusal;
    refusal.refused = true;
    std::vector<std::vector<GivenAnswer>> out;
    TaskMixture tasks("parity:6");
    for (size_t i = 0; i < questions.size(); ++i) {
      std::string right =
          tasks.item(1, first + static_cast<int64_t>(i), TaskSplit::kTrain).example.answer;
      out.emplace_back();
      for (int64_t k = 0; k < tries; ++k) {
        std::string answer = k == 0 ? "wrong" : right;
        out.back().push_back({"<think>t</think>" + answer, answer, k < 4, 3});
        if (first + static_cast<int64_t>(i) == refuse) out.back().back() = refusal;
      }
    }
    return out;
  }
};

struct Answers : testing::Test {
  std::string folder = testing::TempDir() + "/answers_" + std::to_string(::getpid()) + "_" +
                       testing::UnitTest::GetInstance()->current_test_info()->name();
  TaskMixture tasks{"parity:6"};
  CollectSettings s{.questions = 10, .tries = 5, .keep = 2, .block = 4, .seed = 1};
  Scripted source;
  ~Answers() override { std::filesystem::remove_all(folder); }
  CollectReport collect(int64_t blocks = 100) {
    return collect_answers(
        folder, tasks, source, s, [&] { return blocks-- <= 0; }, [](const CollectReport&) {});
  }
  std::vector<std::string> lines() {
    std::vector<std::string> out;
    read_json_lines(list_json_lines({folder}), [&](std::string_view line, const std::string&) {
      return out.emplace_back(line), true;
    });
    return out;
  }
};

TEST_F(Answers, RightOnesAreKeptOnceInTheFormThatTrainingReads) {
  CollectReport r = collect();
  EXPECT_EQ(r.questions, 10);
  EXPECT_EQ(r.solved, 10);
  EXPECT_EQ(r.answers, 50);
  EXPECT_EQ(r.right, 30);  // tries 2 to 4; the last is cut, which no answer survives
  EXPECT_EQ(r.cut, 10);
  EXPECT_EQ(r.kept, static_cast<int64_t>(lines().size()));
  EXPECT_EQ(r.kept, 10);
  EXPECT_EQ(r.duplicates, 20);
  ChatRecord record = parse_chat_record(lines()[0], "line");
  ASSERT_EQ(record.messages.size(), 2u);
  EXPECT_EQ(record.messages[0].content, tasks.item(1, 0, TaskSplit::kTrain).example.question);
  EXPECT_TRUE(record.messages[1].content->starts_with("<think>t</think>"));
}

TEST_F(Answers, MoreQuestionsCompleteAFolderAndFewerAreAPartOfIt) {
  s.questions = 6;
  collect();  // blocks of 4 and 2
  s.questions = 10;
  EXPECT_EQ(collect().questions, 10);
  EXPECT_EQ(source.asked, 6 + 4 + 2);  // the first block is kept, the second is asked anew
  std::vector<std::string> completed = lines();
  std::filesystem::remove_all(folder);
  collect();
  EXPECT_EQ(completed, lines());
  EXPECT_EQ(answer_files(folder, s).size(), 3u);
  s.questions = 8;
  EXPECT_EQ(collect().questions, 8);
  EXPECT_EQ(answer_files(folder, s), (std::vector<std::string>{folder + "/block-000000.jsonl",
                                                               folder + "/block-000001.jsonl"}));
  s.questions = 9;
  EXPECT_THAT(
      error_of([&] { collect(); }),
      testing::HasSubstr("has answers to 10 questions, not 9; ask 10 again, or 8, or take"));
  EXPECT_EQ(completed, lines());
}

TEST_F(Answers, StoppedAndFailedRunsGoOnAtTheFirstBlockThatIsMissing) {
  EXPECT_TRUE(collect(1).stopped);
  EXPECT_EQ(source.asked, 4);
  source.fail_at = 8;
  EXPECT_THROW(collect(), Error);
  EXPECT_EQ(source.asked, 8);
  source.fail_at = -1;
  CollectReport all = collect();
  EXPECT_FALSE(all.stopped);
  EXPECT_EQ(source.asked, 10);
  EXPECT_EQ(all.kept, 10);
  std::vector<std::string> in_parts = lines();
  std::filesystem::remove_all(folder);
  collect();
  EXPECT_EQ(lines(), in_parts);
}

TEST_F(Answers, WhatASourceWritesIntoItsJournalIsThereForTheNextRunAndGoneWithTheBlock) {
  source.journaled = true;
  EXPECT_THROW(collect(), Error);
  std::string part = folder + "/block-000000.part", two = read_file(part);
  write_file_atomic(part, two + two.substr(0, 20));  // killed while it wrote
  AnswerJournal there(part);
  std::string question = tasks.item(1, 1, TaskSplit::kTrain).example.question;
  const GivenAnswer* one = there.find(1, question, 0);
  ASSERT_NE(one, nullptr);
  EXPECT_EQ(one->content, "<think>ü</think>\"\n");
  EXPECT_EQ(one->tokens, 3);
  EXPECT_TRUE(one->ended);
  EXPECT_EQ(there.find(1, question + "?", 0), nullptr);  // the task's file was edited
  EXPECT_EQ(there.find(2, question, 0), nullptr);
  EXPECT_THROW(collect(), Error);
  EXPECT_EQ(read_file(part), two);  // nothing twice, no half line
  write_file_atomic(part, "{\"question\": 1}\n");
  EXPECT_THROW(collect(), Error);
  write_file_atomic(part, two);
  source.journaled = false;
  collect();
  EXPECT_FALSE(std::filesystem::exists(part));
}

TEST_F(Answers, AJournalThatCannotBeWrittenStaysAsItWas) {
  std::filesystem::create_directories(folder);
  std::string part = folder + "/block-000000.part";
  AnswerJournal journal(part);
  journal.add(0, "q", 0, {"a", "a", true, 1});
  std::string before = read_file(part);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit full{before.size() + 20, old.rlim_max};  // as a disk that has room for half a line
  auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  EXPECT_THROW(journal.add(1, "q", 0, {"a", "a", true, 1}), Error);
  ::setrlimit(RLIMIT_FSIZE, &old);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_file(part), before);
  journal.add(1, "q", 0, {"b", "b", true, 1});
  EXPECT_EQ(AnswerJournal(part).find(1, "q", 0)->content, "b");
}

// The command sends the signal itself, the first time.
TEST_F(Answers, WhatASignalKeptFromBeingCheckedIsNotAskedAgain) {
  std::filesystem::create_directories(folder);
  std::string file = folder + "/q.jsonl", came = folder + "/came", lines;
  for (int i = 0; i < 40; ++i)
    lines += "{\"question\": \"question " + std::to_string(i) + "\", \"answer\": \"A\"}\n";
  write_file_atomic(file, lines);
  TaskMixture judged(file + "@command=mkdir '" + came + "' 2>/dev/null && { kill -INT " +
                     std::to_string(::getpid()) + "; sleep 100; }; echo 1");
  std::string out = folder + "/answers";
  auto go_on = [&] {
    return collect_answers(
        out, judged, source, s, [] { return false; }, [](const CollectReport&) {});
  };
  testing::internal::CaptureStderr();
  {
    StopSignal stop;
    EXPECT_TRUE(go_on().stopped);
  }
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(source.asked, 4);
  CollectReport r = go_on();
  EXPECT_EQ(source.asked, 10);
  EXPECT_EQ(r.right, 40);
  EXPECT_FALSE(r.stopped);
}

TEST_F(Answers, OnesToOtherQuestionsOfTheSameFileAreRefused) {
  std::filesystem::create_directories(folder);
  std::string file = folder + "/q.jsonl", out = folder + "/answers", lines;
  auto collect = [&](const char* answer) {
    lines.clear();
    for (int i = 0; i < 40; ++i)
      lines += fmt::format("{{\"question\": \"question {}\", \"answer\": \"{}\"}}\n", i, answer);
    write_file_atomic(file, lines);
    TaskMixture asked(file);
    collect_answers(
        out, asked, source, s, [] { return false; }, [](const CollectReport&) {});
  };
  collect("A");
  collect("A");
  EXPECT_THROW(collect("B"), Error);
  std::string settings = read_file(out + "/settings.json");  // as older versions wrote it
  size_t begin = settings.find("  \"task_files\"");
  ASSERT_NE(begin, std::string::npos);
  write_file_atomic(out + "/settings.json",
                    settings.erase(begin, settings.find('\n', begin) + 1 - begin));
  EXPECT_NO_THROW(collect("B"));
}

TEST_F(Answers, RefusedQuestionsAreCountedAndNoAnswers) {
  source.refuse = 5;
  CollectReport r = collect();
  EXPECT_EQ(r.refused, 1);
  EXPECT_EQ(r.questions, 10);
  EXPECT_EQ(r.answers, 45);
  EXPECT_EQ(r.kept, 9);
  EXPECT_EQ(collect().refused, 1);  // from the blocks' files
}

TEST_F(Answers, AFolderOfOtherAnswersOrADamagedOneIsRefused) {
  collect();
  s.tries = 4;
  EXPECT_THROW(collect(), Error);
  s.tries = 5;
  for (const char* line : {"{}", "5", "{\"messages\":[]}", "{\"messages\":[{\"content\":1}]}"}) {
    write_file_atomic(folder + "/block-000000.jsonl", std::string(line) + "\n");
    EXPECT_THROW(collect(), Error) << line;
  }
  std::filesystem::remove(folder + "/block-000000.jsonl");
  write_file_atomic(folder + "/block-000001.json", "{\"questions\": \"many\"}");
  EXPECT_THROW(collect(), Error);
}

}  // namespace
}  // namespace wels
