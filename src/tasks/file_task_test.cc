#include "tasks/file_task.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/signal.h"
#include "base/threads.h"
#include "tasks/checker.h"
#include "tasks/process.h"
#include "tasks/sandbox.h"

namespace wels {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class FileTaskTest : public ::testing::Test {
 protected:
  FileTaskTest() {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("wels_tasks_{}", ::getpid());
    std::filesystem::create_directories(folder_);
  }
  ~FileTaskTest() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& content) {
    std::string path = (folder_ / fmt::format("{}.jsonl", count_++)).string();
    write_file_atomic(path, content);
    return path;
  }
  std::unique_ptr<Task> task(const std::string& content, const std::string& checker = "") {
    return make_file_task(file(content), checker);
  }
  std::string error(const std::string& content, const std::string& checker = "") {
    try {
      task(content, checker);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
  // The score of an answer to the one question of the file.
  double score(const std::string& content, const std::string& answer,
               const std::string& checker = "") {
    auto t = task(content, checker);
    return t->score(t->example(1, 1), answer);
  }

  std::filesystem::path folder_;
  int count_ = 0;
};

TEST_F(FileTaskTest, GivesTheLinesOfTheFile) {
  auto t = task(
      "{\"question\": \"a?\", \"answer\": \"A\", \"chain\": \"because\"}\n\n"
      "{\"question\": \"b?\", \"answer\": 12}\n{\"question\": \"c?\", \"answer\": true}");
  std::set<std::string> answers;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    TaskExample e = t->example(seed, 1);
    answers.insert(e.question + e.answer + e.chain);
    EXPECT_EQ(t->score(e, e.answer), 1);
    EXPECT_EQ(t->score(e, "something else"), 0);
    EXPECT_EQ(e.metadata, t->example(seed, 1).metadata);
  }
  EXPECT_EQ(answers, (std::set<std::string>{"a?Abecause", "b?12", "c?true"}));
  EXPECT_EQ(t->levels().lowest, 1);
  EXPECT_EQ(t->levels().highest, 1);
}

TEST_F(FileTaskTest, ReadsGsm8k) {
  auto t = task(
      "{\"question\": \"How many?\", \"answer\": \"He has 48/2 = <<48/2=24>>24 clips.\\n"
      "All: $<<1000+24=1024>>1024.\\n#### 1,024\"}");
  TaskExample e = t->example(0, 1);
  EXPECT_EQ(e.answer, "1,024");
  EXPECT_EQ(e.chain, "He has 48/2 = 24 clips.\nAll: $1024.");
  for (const char* right : {"1024", "#### 1,024", "\\boxed{1024}", "So she has 1,024 clips.",
                            "$1024.00", "<answer>1024</answer>"})
    EXPECT_EQ(t->score(e, right), 1) << right;
  for (const char* wrong : {"", "1025", "-1024", "1024 or 7", "\\boxed{7} 1024", "#### 7"})
    EXPECT_EQ(t->score(e, wrong), 0) << wrong;
}

TEST(Gsm8k, ScoresEverySolutionOfItsOwnOneAndOthersZero) {
  const char* data = std::getenv("WELS_DATA");
  std::string path = std::string(data ? data : "../shared/data") + "/gsm8k_test.jsonl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there (set WELS_DATA)";
  auto task = make_file_task(path, "");
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    TaskExample e = task->example(seed, 1);
    EXPECT_EQ(task->score(e, e.answer), 1);
    EXPECT_EQ(task->score(e, e.chain + "\n#### " + e.answer), 1) << e.chain;
    EXPECT_EQ(task->score(e, "The answer is " + e.answer + "."), 1) << e.answer;
    EXPECT_EQ(task->score(e, e.answer + "1"), 0);
    EXPECT_EQ(e.chain.find("<<"), std::string::npos);
  }
}

TEST_F(FileTaskTest, ComparesTextsAndNumbersAsTheCheckerSays) {
  std::string line = R"({"question": "Capital of France?", "answer": "Paris"})";
  EXPECT_EQ(score(line, " paris. "), 1);
  for (const char* right : {"It is \\boxed{Paris}", "**Paris**", "**Paris.**", "`Paris`.",
                            "\\boxed{\\text{Paris}}", "#### **Paris**"})
    EXPECT_EQ(score(line, right), 1) << right;
  EXPECT_EQ(score(line, "It is Paris"), 0);
  std::string init = R"({"question": "A constructor?", "answer": "__init__"})";
  for (const char* right : {"__init__", "`__init__`", "\\boxed{__init__}", "**`__init__`**."})
    EXPECT_EQ(score(init, right), 1) << right;
  EXPECT_EQ(score(init, "init"), 0);
  EXPECT_EQ(score(R"({"question": "Capital?", "answer": "**Paris**"})", "Paris"), 1);
  std::string list = R"({"question": "Sort.", "answer": "17 120 300"})";
  EXPECT_EQ(score(list, "17 120 300"), 1);
  EXPECT_EQ(score(list, "17120300"), 0);
  EXPECT_EQ(score(R"({"question": "Half?", "answer": "0.5"})", "1/2"), 1);
  EXPECT_EQ(score(R"({"question": "Half?", "answer": "0.5"})", "1/2", "exact"), 0);
  std::string thousands = R"({"question": "Years?", "answer": "2024"})";
  for (const char* right : {"\\boxed{2{,}024}", "2 024", "So it took 2 024 years.", "**2,024**",
                            "2.024e3", "x = 2024 (see step 2)", "It took 2024 years (of 12 months).",
                            "$2.024 \\times 10^{3}$", "20 then 2024"})
    EXPECT_EQ(score(thousands, right), 1) << right;
  EXPECT_EQ(score(thousands, "There were 24 in 2 rows (2024 apples)."), 1);
  EXPECT_EQ(score(thousands, "The area is 46 × 44 cm (2024 cm²)"), 1);
  for (const char* wrong : {"2 0 2 4", "24 (not 2024)", "2024 or 20", "2,024 - 1", "2024 (1)",
                            "2024 (or 20)", "24 (see page 2024)"})
    EXPECT_EQ(score(thousands, wrong), 0) << wrong;
  std::string fraction = R"({"question": "How much?", "answer": "-3/4"})";
  for (const char* right :
       {"\\boxed{\\frac{-3}{4}}", "\\boxed{-\\frac34}", "It is $x = -\\frac{3}{4}$",
        "\\boxed{x = -\\frac{3}{4}\\,\\text{ m}}", "\\boxed{-0.75^\\circ}",
        "\\boxed{x \\approx -0.75}"})
    EXPECT_EQ(score(fraction, right), 1) << right;
  for (const char* wrong : {"\\boxed{\\frac{3}{4}}", "\\boxed{2 \\cdot -\\frac34}"})
    EXPECT_EQ(score(fraction, wrong), 0) << wrong;
  std::string seven = R"({"question": "How much?", "answer": "7"})";
  for (const char* wrong : {"\\boxed{7²}", "7²", "\\boxed{\\sqrt{7}}", "$\\sqrt{7}$",
                            "\\boxed{3 \\cdot 7}", "it is \\sqrt{7}"})
    EXPECT_EQ(score(seven, wrong), 0) << wrong;
  for (const char* reference : {R"("1e3")", "1e3", "1000"}) {
    std::string question = fmt::format(R"({{"question": "Metres?", "answer": {}}})", reference);
    EXPECT_EQ(score(question, "1000"), 1) << reference;
    EXPECT_EQ(score(question, "3"), 0) << reference;
  }
  EXPECT_EQ(score(R"({"question": "Half?", "answer": "0.5", "checker": "exact"})", "1/2"), 0);
  EXPECT_EQ(score(R"({"question": "Half?", "answer": "0.5", "checker": "exact"})", "1/2", "number"),
            1);
}

TEST_F(FileTaskTest, TakesLettersOrTextsForChoices) {
  std::string line =
      R"({"question": "Sky?", "choices": ["red", "blue", "a green one"], "answer": "B"})";
  auto t = task(line);
  TaskExample e = t->example(0, 1);
  EXPECT_EQ(e.question, "Sky?\nA) red\nB) blue\nC) a green one");
  for (const char* right :
       {"B", "b", "(B)", "B.", "B) blue", "blue", "The answer is B.", "Answer: (b)", "答案是 B",
        "（B）", "\\boxed{B}", "Blue.", "**B**", "The answer is **B**", "The answer is **B**.",
        "Option B", "option b.", "**B) blue**", "\\boxed{\\text{B}}", "The answer is blue.",
        "**Answer:** B", "ANSWER: B", "The correct option is (B).", "B\n\nBecause A is red.",
        "A. No wait, the answer is B", "A. No wait, B.", "Not A.\n\nB", "A) is night.\nB) blue",
        "The answer is A. No, the answer is B, not A.", "B - blue", "B) blue, as A) red is night",
        "The answer is $B$", "选B", "The answer is B because A is red.", "答案是B选项",
        "The answer is B. A is incorrect because the sky is no fire.",
        "The correct answer is B. A catalyst lowers the activation energy.",
        "Answer: B\n\nA is wrong since it is day.", "The answer is B, A being too small.",
        "B\n\nA) is red, so no.", "不是 A。\n\nB。", "B\n\nA. Because it is day, no.",
        "The answer is B. (A is red.)", "B. blue",
        "The correct answer is **B** as the sky is blue", "The answer is B and not A.",
        "The answer is B, or blue as the sky is. A is red."})
    EXPECT_EQ(t->score(e, right), 1) << right;
  for (const char* wrong :
       {"", "A", "red", "C", "D", "Z", "Because", "A B", "The answer is C", "(", "🙂", "A, B", "B, A",
        "A and B", "B or C", "(A) and (B)", "A) red\nB) blue\nC) a green one", "B\nA", "A/B",
        "The answer is A or B", "The answer is B, C", "B. No wait, the answer is A", "B. No, A.",
        "Option A", "The answer is not B", "The answer is B or C because both fit",
        "A. red\nB. blue\nC. a green one", "B) blue; C) a green one", "B) blue C) a green one",
        "The answer is B and C are right", "The answer is B.\nC", "**",
        "The answer is Blue or red", "**B**, **C**", "A, B, C",
        "The answer is B or maybe C", "The answer is B, perhaps C."})
    EXPECT_EQ(t->score(e, wrong), 0) << wrong;
  auto letters = task(
      R"({"question": "Note?", "choices": ["C", "A, B", "3.5", "5"], "answer": "A, B"})");
  e = letters->example(0, 1);
  EXPECT_EQ(e.answer, "B");
  EXPECT_EQ(letters->score(e, "B) A, B"), 1);
  EXPECT_EQ(chosen_letter("A) C", {"C", "G"}), 'A');
  EXPECT_EQ(chosen_letter("It is 3.5", {"3", "5"}), '\0');
  EXPECT_EQ(chosen_letter("The answer is B. I checked it.", std::vector<std::string>(9, "x")), 'B');
  EXPECT_EQ(score(R"({"question": "Sky?", "choices": ["red", "blue"], "answer": "blue"})", "B"), 1);
}

TEST_F(FileTaskTest, TellsChoicesApartByTheirMarks) {
  std::vector<std::string> powers = {"*", "**", "^", "pow"};
  EXPECT_EQ(chosen_letter("", powers), '\0');
  EXPECT_EQ(chosen_letter("****", powers), '\0');
  EXPECT_EQ(chosen_letter("*", powers), 'A');
  for (const char* b : {"**", "B", "**B**", "`**`", "The answer is **B**.", "B) **", "b",
                        "The answer is **"})
    EXPECT_EQ(chosen_letter(b, powers), 'B') << b;
  EXPECT_EQ(chosen_letter("**pow**", powers), 'D');
  EXPECT_EQ(chosen_letter("2**3", {"2**3", "23"}), 'A');
  EXPECT_EQ(chosen_letter("The answer is 23.", {"2**3", "23"}), 'B');
  EXPECT_EQ(chosen_letter("**B**, **A**", {"2**3", "23"}), '\0');
  EXPECT_EQ(chosen_letter("__init__", {"__init__", "init"}), 'A');
  EXPECT_EQ(chosen_letter("init", {"__init__", "init"}), 'B');
  EXPECT_EQ(chosen_letter("$5", {"$5", "5"}), 'A');
  EXPECT_EQ(chosen_letter("b", {"B", "`B`"}), 'B');  // a letter is a choice's
  auto t = task(R"({"question": "Power?", "choices": ["*", "**", "^"], "answer": "**"})");
  EXPECT_EQ(t->score(t->example(0, 1), "B"), 1);
  EXPECT_EQ(t->score(t->example(0, 1), ""), 0);
}

TEST_F(FileTaskTest, JudgesLongAnswersInNoTime) {
  std::string no, stars(200'000, '*');
  for (int i = 0; i < 50'000; ++i) no += "no, ";
  double start = monotonic_seconds();
  EXPECT_EQ(chosen_letter(no + "B", {"red", "blue"}), 'B');
  EXPECT_EQ(chosen_letter(stars, {"red", "blue"}), '\0');
  EXPECT_LT(monotonic_seconds() - start, 10);
}

TEST_F(FileTaskTest, ChecksJson) {
  std::string any = R"({"question": "Write JSON.", "checker": "json"})";
  EXPECT_EQ(score(any, "{\"a\": [1, 2]}"), 1);
  EXPECT_EQ(score(any, "Here:\n```json\n{\"a\": 1}\n```"), 1);
  for (std::string wrong : {std::string(""), std::string("{a: 1}"), std::string("{\"a\": 1,}"),
                            std::string("{} {}"), std::string("\xff"), std::string(100000, '[')})
    EXPECT_EQ(score(any, wrong), 0);
  std::string equal = R"({"question": "Write JSON.", "answer": {"a": [1, 2], "b": null}})";
  EXPECT_EQ(score(equal, R"({"b": null, "a": [1.0, 2]})"), 1);
  EXPECT_EQ(score(equal, R"({"b": null, "a": [2, 1]})"), 0);
}

TEST_F(FileTaskTest, NamesTheLineThatIsWrong) {
  std::string good = "{\"question\": \"a?\", \"answer\": \"A\"}\n";
  EXPECT_THAT(error(good + "{\"question\": \"b?\"\n"),
              AllOf(HasSubstr(".jsonl:2: "), HasSubstr("not valid JSON")));
  EXPECT_THAT(error(good + "\n[1]\n"),
              AllOf(HasSubstr(".jsonl:3: "), HasSubstr("is array, not an object")));
  EXPECT_THAT(error("{\"question\": \"b?\"}"),
              AllOf(HasSubstr(".jsonl:1: "), HasSubstr("has no \"answer\"; write")));
  EXPECT_THAT(error("{\"answer\": \"b\"}"), HasSubstr("has no \"question\"; write"));
  EXPECT_THAT(error("{\"question\": 7, \"answer\": \"b\"}"),
              HasSubstr("\"question\" is number, not a text"));
  EXPECT_THAT(error("{\"question\": \" \", \"answer\": \"b\"}"),
              HasSubstr("the question is empty"));
  EXPECT_THAT(error("{\"question\": \"q\", \"answer\": null}"), HasSubstr("\"answer\" is null"));
  EXPECT_THAT(error("{\"question\": \"q\", \"answer\": \"b\", \"chain\": 3}"),
              HasSubstr("\"chain\" is number"));
  EXPECT_THAT(
      error("{\"question\": \"q\", \"answer\": \"b\", \"checker\": \"sympy\"}"),
      AllOf(HasSubstr(":1: there is no checker \"sympy\""), HasSubstr("use one of exact, number")));
  EXPECT_THAT(error(good, "sympy"), HasSubstr("@sympy: there is no checker"));
  EXPECT_THAT(error(good, "number"), HasSubstr(":1: the answer \"A\" is no number"));
  for (const char* part : {"1/0", "48 apples", "\\\\sqrt{2}", "7²"})
    EXPECT_THAT(error(fmt::format(R"({{"question": "q", "answer": "{}"}})", part), "number"),
                HasSubstr("is no number"))
        << part;
  for (const char* empty : {"", " ", "\\\\boxed{}"})
    EXPECT_THAT(error(fmt::format(R"({{"question": "q", "answer": "{}"}})", empty)),
                HasSubstr("the answer is empty"))
        << empty;
  EXPECT_THAT(error(good, "choice"), HasSubstr("\"choices\" is no list"));
  EXPECT_THAT(error("{\"question\": \"q\", \"answer\": \"x\", \"choices\": [\"y\", 2]}"),
              HasSubstr("a choice is no text"));
  EXPECT_THAT(error("{\"question\": \"q\", \"answer\": \"x\", \"choices\": [\"y\"]}"),
              HasSubstr("\"x\" is none of the choices"));
  EXPECT_THAT(error(good, "command="), HasSubstr("the checker's command is empty"));
  EXPECT_THAT(error(good, "command"), HasSubstr("the checker's command is empty"));
  EXPECT_THAT(error("{\"question\": \"q\", \"answer\": \"b\", \"checker\": \"command=rm x\"}"),
              HasSubstr(":1: a file of questions can't name a program to run"));
  EXPECT_THAT(error(good, "code"), HasSubstr("\"tests\" is neither code nor"));
  EXPECT_THAT(error("{\"question\": \"q\", \"tests\": \"\", \"language\": \"cobol\"}"),
              HasSubstr("unknown language cobol"));
  EXPECT_THAT(error("{\"question\": \"q\", \"tests\": [{\"input\": \"\"}]}"),
              HasSubstr("\"tests\" is neither code nor"));
  EXPECT_THAT(error(""), HasSubstr("holds no question"));
  EXPECT_THAT(error("\n \n"), HasSubstr("holds no question"));
  EXPECT_THROW(make_file_task("/nowhere/x.jsonl", ""), Error);
}

TEST_F(FileTaskTest, IsAPartOfAMixtureWithItsOwnHeldOutQuestions) {
  std::string lines;
  for (int i = 0; i < 100; ++i)
    lines += fmt::format("{{\"question\": \"{} plus 1?\", \"answer\": {}}}\n", i, i + 1);
  std::string path = file(lines);
  TaskMixture mixture(path + "@number*2,parity");
  std::set<std::string> train, held;
  for (int64_t i = 0; i < 400; ++i) {
    train.insert(mixture.item(1, i, TaskSplit::kTrain).example.question);
    held.insert(mixture.item(1, i, TaskSplit::kHeldOut).example.question);
  }
  for (const std::string& q : held) EXPECT_FALSE(train.count(q)) << q;
  TaskMixture one(file("{\"question\": \"only one\", \"answer\": \"A\"}"));
  TaskSplit other = is_held_out("only one") ? TaskSplit::kTrain : TaskSplit::kHeldOut;
  EXPECT_THROW(one.item(1, 0, other), Error);
  EXPECT_THROW(TaskMixture(path + "@"), Error);
  EXPECT_THROW(TaskMixture(path + ":2"), Error);
}

TEST_F(FileTaskTest, AllOfAFileIsEveryQuestionOnceInItsOrder) {
  std::string path = file(R"({"question": "a", "answer": "1"}
{"question": "b", "answer": "2"}
{"question": "c", "answer": "3"})");
  TaskMixture mixture(path + "," + path + "@exact");
  std::vector<TaskMixture::Item> all = mixture.all();
  std::string questions;
  for (const TaskMixture::Item& item : all) questions += item.example.question;
  EXPECT_EQ(questions, "abcabc");
  EXPECT_EQ(all[4].task->score(all[4].example, "2"), 1);
  EXPECT_THROW(TaskMixture(path + ",parity:4").all(), Error);
}

TEST_F(FileTaskTest, AsksACommandForTheScore) {
  std::string line = R"({"question": "q\"?", "answer": "A", "extra": [1]})";
  // The checker sees the question, the answer, the completion and the line's other fields.
  std::string command =
      "command=python3 -c 'import json; d = json.load(open(0)); print(0.5 if d == {\"question\": "
      "\"q\\\"?\", "
      "\"answer\": \"A\", \"completion\": \"mine\", \"extra\": [1]} else 0)'";
  EXPECT_EQ(score(line, "mine", command), 0.5);
  EXPECT_EQ(score(line, "other", command), 0);
  EXPECT_EQ(score(line, "x", "command=echo 1"), 1);
  EXPECT_EQ(score(line, "x", "command=cat >/dev/null; echo ' 0.5 '"), 0.5);
}

TEST_F(FileTaskTest, TakesCommasAndStarsOfACommandInQuotes) {
  std::string path = file(R"({"question": "q?", "answer": "A"})");
  TaskMixture mixture(path + R"(@command=test 'a,*"' = "a,*\"" && echo 1 *2, parity:4-6*3)");
  ASSERT_EQ(mixture.parts().size(), 2u);
  EXPECT_EQ(mixture.parts()[0].share, 2);
  EXPECT_EQ(mixture.parts()[1].share, 3);
  const Task& t = *mixture.parts()[0].task;
  EXPECT_EQ(t.score(t.row(0), "x"), 1);
  auto error_of = [](const std::string& spec) -> std::string {
    try {
      TaskMixture tasks(spec);
      return "no error";
    } catch (const Error& e) {
      return e.what();
    }
  };
  EXPECT_THAT(error_of(path + "@command=./judge.py --mode a,b"),
              HasSubstr("there is no task \"b\"; put a command's commas in quotes"));
  EXPECT_THAT(error_of(path + "@command=cat *.txt"),
              HasSubstr("the share \".txt\" of"));
  EXPECT_THAT(error_of(path + "@command=cat *.txt"), HasSubstr("put the command's * in quotes"));
  EXPECT_THAT(error_of(path + ",it's"), HasSubstr("there is no task \"it's\"; use one of"));
  // Only what a comma of the command's can have become is told of the quotes.
  EXPECT_THAT(error_of(path + "@command=judge,parity:99"), HasSubstr("choose a level"));
  EXPECT_THAT(error_of(path + "@command=judge,"), HasSubstr("a command's commas in quotes"));
  EXPECT_THAT(error_of(path + "@command=judge,/nowhere/x.jsonl"),
              testing::Not(HasSubstr("commas in quotes")));
  TaskMixture escaped(path + R"(@command=echo \"a\,b\" >/dev/null; echo 1,parity:4)");
  ASSERT_EQ(escaped.parts().size(), 2u);
  const Task& quoted = *escaped.parts()[0].task;
  EXPECT_EQ(quoted.score(quoted.row(0), "x"), 1);
  EXPECT_EQ(escaped.parts()[1].text, "parity:4");
}

TEST_F(FileTaskTest, CountsCommandsThatFailAndGoesOn) {
  std::string line = R"({"question": "q?", "answer": "A"})";
  for (const char* command :
       {"exit 3", "kill -9 $$", "kill -SEGV $$", "echo good", "echo 2", "echo -1", "echo nan",
        "echo 1 1", "true", "yes", "/no/such/program", "echo 1; exit 1"}) {
    auto t = task(line, std::string("command=") + command);
    EXPECT_EQ(t->score(t->example(0, 1), "x"), 0) << command;
    EXPECT_EQ(t->checker_failures(), 1) << command;
  }
  auto good = task(line, "command=echo 1");
  EXPECT_EQ(good->score(good->example(0, 1), std::string(300000, 'x')), 1);
  EXPECT_EQ(good->score(good->example(0, 1), "\xff\xfe not UTF-8"), 1);
  EXPECT_EQ(good->checker_failures(), 0);
}

TEST_F(FileTaskTest, StopsCommandsThatHang) {
  TaskExample e{"q", "A", "", R"({"fields":{}})"};
  for (const char* command :
       {"sleep 100", "sleep 100 & echo 1; wait", "trap '' TERM INT HUP; sleep 100", "yes >&2",
        "exec 1>&- 2>&-; sleep 100"}) {
    auto checker = make_command_checker(command, 0.3);
    double start = monotonic_seconds();
    EXPECT_EQ(checker->score(e, "x"), 0) << command;
    EXPECT_EQ(checker->failures(), 1) << command;
    EXPECT_LT(monotonic_seconds() - start, 10) << command;
  }
  // What it left running does not hold up its score.
  auto checker = make_command_checker("sleep 100 & echo 1", 20);
  double start = monotonic_seconds();
  EXPECT_EQ(checker->score(e, "x"), 1);
  EXPECT_LT(monotonic_seconds() - start, 10);
}

TEST_F(FileTaskTest, TheSpecSaysHowLongACommandMayTake) {
  std::string line = R"({"question": "q?", "answer": "A"})";
  double start = monotonic_seconds();
  auto t = task(line, "timeout=0.3 command=sleep 100");
  EXPECT_EQ(t->score(t->example(0, 1), "x"), 0);
  EXPECT_EQ(t->checker_failures(), 1);
  EXPECT_LT(monotonic_seconds() - start, 10);
  EXPECT_EQ(score(line, "x", "timeout=5 command=echo 1"), 1);
  for (const char* wrong : {"timeout=0 command=echo 1", "timeout=x command=echo 1", "timeout=5",
                            "timeout=5 number"})
    EXPECT_THAT(error(line, wrong), HasSubstr("no time limit of a command; write")) << wrong;
}

TEST_F(FileTaskTest, ASignalEndsACheckAtOnce) {
  auto t = task(R"({"question": "q?", "answer": "A"})",
                fmt::format("command=kill -INT {}; sleep 100", ::getpid()));
  testing::internal::CaptureStderr();
  {
    StopSignal stop;
    double start = monotonic_seconds();
    for (int i = 0; i < 2; ++i) EXPECT_THROW(t->score(t->example(0, 1), "x"), Interrupted);
    EXPECT_LT(monotonic_seconds() - start, 10);
  }
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(t->checker_failures(), 0);
}

TEST_F(FileTaskTest, ScoresInSeveralThreads) {
  auto t = task(R"({"question": "q?", "answer": "A"})", "command=cat >/dev/null; echo 1");
  TaskExample e = t->example(0, 1);
  std::vector<double> scores(32);
  parallel_tasks(32, [&](int64_t i) { scores[static_cast<size_t>(i)] = t->score(e, "x"); });
  EXPECT_EQ(scores, std::vector<double>(32, 1.0));
  EXPECT_EQ(t->checker_failures(), 0);
}

TEST(Process, SaysWhyAProgramDidNotStart) {
  ProcessJob job;
  job.argv = {"no-such-program-here"};
  ProcessResult r = run_process(job);
  EXPECT_EQ(r.end, ProcessResult::kNotStarted);
  EXPECT_THAT(r.reason(), HasSubstr("no-such-program-here: No such file"));
}

// A program that goes to a session of its own and there leaves its number in a file.
std::string hidden_program(const std::string& number) {
  return fmt::format("setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300' & ", number);
}
pid_t number_in(const std::string& path) {
  for (int i = 0; i < 1000 && !std::filesystem::exists(path); ++i) ::usleep(10'000);
  return std::stoi(read_file(path));
}
bool ends_soon(pid_t pid) {
  for (int i = 0; i < 1000; ++i, ::usleep(10'000)) {
    if (::kill(pid, 0) != 0) return true;
  }
  return false;
}

TEST_F(FileTaskTest, NothingThatAProgramStartedOutlivesIt) {
  std::string number = (folder_ / "number").string(),
              wait = "while [ ! -e " + number + " ]; do :; done;";
  for (const char* end : {"echo done", "sleep 300"}) {
    std::filesystem::remove(number);
    ProcessJob job;
    job.argv = {"sh", "-c", hidden_program(number) + wait + end};
    job.limit_s = 2;
    ProcessResult r = run_process(job);
    EXPECT_EQ(r.output, end[0] == 'e' ? "done\n" : "");
    EXPECT_EQ(r.good(), end[0] == 'e');
    EXPECT_NE(::kill(number_in(number), 0), 0) << end;
  }
}

TEST_F(FileTaskTest, AProgramEndsWhenWeAreKilled) {
  std::string number = (folder_ / "number").string();
  pid_t self = ::fork();
  ASSERT_GE(self, 0);
  if (self == 0) {
    ProcessJob job;
    job.argv = {"sh", "-c", hidden_program(number) + "sleep 300"};
    job.limit_s = 300;
    run_process(job);
    ::_exit(0);
  }
  pid_t program = number_in(number);
  ::kill(self, SIGKILL);
  ::waitpid(self, nullptr, 0);
  EXPECT_TRUE(ends_soon(program));
}

TEST(Process, GivesInputAndFilesAndTakesOutput) {
  ProcessJob job;
  std::string large(3 << 20, 'x');
  job.argv = {"sh", "-c", "cat /dev/stdin /dev/fd/10 /dev/fd/11; echo problem >&2; exit 7"};
  job.input = "in ";
  job.files = {"first ", large};
  job.most_output_bytes = 4 << 20;
  ProcessResult r = run_process(job);
  EXPECT_EQ(r.end, ProcessResult::kExited);
  EXPECT_EQ(r.code, 7);
  EXPECT_TRUE(r.output == "in first " + large) << r.output.size();
  EXPECT_EQ(r.reason(), "exit code 7: problem");
}

// --- The sandbox, where there is one.

std::optional<std::string> no_sandbox() {
  try {
    Sandbox sandbox(CodeLanguage::kPython);
    return std::nullopt;
  } catch (const Error& e) {
    return e.what();
  }
}
#define NEED_SANDBOX()                                            \
  if (std::optional<std::string> why = no_sandbox()) {            \
    EXPECT_THAT(*why, ::testing::ContainsRegex("sandbox: .*; ")); \
    GTEST_SKIP() << *why;                                         \
  }

TEST_F(FileTaskTest, RunsCodeAgainstItsTests) {
  NEED_SANDBOX();
  std::string python =
      R"({"question": "Double?", "tests": "assert f(2) == 4\nassert f(-1) == -2"})";
  EXPECT_EQ(score(python, "def f(x): return 2*x"), 1);
  EXPECT_EQ(score(python, "Sure:\n```python\ndef f(x):\n    return x+x\n```\nDone."), 1);
  for (const char* wrong :
       {"", "def f(x): return 4", "def f(x): return", "syntax error(", "import sys; sys.exit(0)",
        "import builtins; builtins.exec = lambda *a: None",
        "import builtins; builtins.compile = lambda *a: 'pass'", "import os; os._exit(0)",
        "f = 1/0", "print('passed-0000')\nraise SystemExit",
        "import os, sys\nsys.stdout.write(open(sys.argv[0]).read())\n"
        "sys.stdout.flush()\nos._exit(0)",
        "import os\nos.lseek(0, 0, 0)\nos.write(1, os.read(0, 9999))\nos._exit(0)",
        "def f(x): return os.getpid() and 2*x",
        "def f(x):\n  while True: pass"})
    EXPECT_EQ(score(python, wrong), 0) << wrong;
  std::string io =
      R"({"question": "Sum?", "tests": [{"input": "1 2\n", "output": "3"}, {"input": "5 5", "output": "10\n"}]})";
  EXPECT_EQ(score(io, "a,b=map(int,input().split())\nprint(a+b)"), 1);
  EXPECT_EQ(score(io, "print(3)"), 0);
}

TEST_F(FileTaskTest, RunsCppAgainstItsTests) {
  NEED_SANDBOX();
  std::string cpp = R"({"question": "Double?", "language": "c++", "tests": "assert(f(2) == 4);"})";
  EXPECT_EQ(score(cpp, "int f(int x) { return 2 * x; }"), 1);
  EXPECT_EQ(score(cpp, "int f(int x) { return 5; }"), 0);
  EXPECT_EQ(score(cpp, "int f(int x) { return "), 0);
  EXPECT_EQ(score(cpp, "#define NDEBUG\nint f(int x) { return 5; }"), 0);
  for (const char* off :
       {"#define __assert_fail(...) ((void)0)", "#define assert(x) ((void)0)",
        "#define __builtin_trap() ((void)0)", "extern \"C\" void __assert_fail(...) {}"})
    EXPECT_EQ(score(cpp, fmt::format("{}\nint f(int x) {{ return 5; }}", off)), 0) << off;
  EXPECT_EQ(score(cpp, "#include <cstdlib>\nint f(int x) { std::exit(0); }"), 0);
  EXPECT_EQ(score(cpp, "int read() { return 2; }\nint f(int x) { return read() * x; }"), 1);
  for (const char* file : {"/dev/stdin", "/proc/self/exe"})
    EXPECT_EQ(score(cpp, fmt::format("#include <cstdlib>\n#include <fstream>\n#include <iostream>\n"
                                     "int f(int) {{ std::cout << std::ifstream(\"{}\").rdbuf() "
                                     "<< std::flush; std::_Exit(0); }}",
                                     file)),
              0)
        << file;
  std::string io =
      R"({"question": "Sum?", "language": "c++", "tests": [{"input": "1 2", "output": "3"}]})";
  EXPECT_EQ(score(io,
                  "```cpp\n#include <iostream>\nint main() { int a, b; std::cin >> a >> b; "
                  "std::cout << a + b << '\\n'; }\n```"),
            1);
}

TEST(Sandbox, KeepsProgramsFromHarm) {
  NEED_SANDBOX();
  SandboxLimits limits;
  limits.run_s = 2;
  limits.memory_bytes = int64_t{256} << 20;
  Sandbox sandbox(CodeLanguage::kPython, limits);
  auto run = [&](const std::string& source) {
    return sandbox.run(sandbox.build(source), "the input");
  };
  ProcessResult ok = run(
      "import threading\nt=threading.Thread(target=lambda: print(input()))\nt.start()\nt.join()");
  EXPECT_EQ(ok.output, "the input\n") << ok.reason();
  // Prints "got in" where it could.
  for (const char* harm : {
           "import os\nos.fork()\nprint('got in')",
           "import subprocess\nsubprocess.run(['/usr/bin/true'], check=True)\nprint('got in')",
           "import os\nos.posix_spawn('/usr/bin/true', ['true'], {})\nprint('got in')",
           "import os\nos.unshare(0x10000000) if hasattr(os, 'unshare') else 1/0\nprint('got in')",
           "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)\nprint('got in')",
           "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)\nprint('got in')",
           "open('/etc/passwd').read()\nprint('got in')",
           "open('/usr/x', 'w')\nprint('got in')",
           "open('/work/x', 'w')\nprint('got in')",
           "open('/x', 'w')\nprint('got in')",
           "import os\nos.listdir('/home')\nprint('got in')",
           "import os\nos.listdir('/proc')\nprint('got in')",
           "a = bytearray(1 << 30)\nprint('got in')",
           "open('/tmp/x', 'wb').write(bytes(100 << 20))\nprint('got in')",
           "while True: pass",
           "import time\ntime.sleep(100)",
           "while True: print('x' * 1000)",
       }) {
    double start = monotonic_seconds();
    ProcessResult r = run(harm);
    EXPECT_FALSE(r.good()) << harm;
    EXPECT_THAT(r.output, ::testing::Not(HasSubstr("got in"))) << harm;
    EXPECT_LT(monotonic_seconds() - start, 20);
  }
  EXPECT_EQ(run("import os\nprint(os.environ.get('HOME'), os.getppid() < 3)").output,
            "None True\n");
}

TEST(Sandbox, SaysWhatIsMissing) {
  std::string path = ::getenv("PATH");
  ::setenv("PATH", "/nowhere", 1);
  std::optional<std::string> why = no_sandbox();
  ::setenv("PATH", path.c_str(), 1);
  ASSERT_TRUE(why.has_value());
  EXPECT_THAT(
      *why, AllOf(HasSubstr("bubblewrap is missing"), HasSubstr("install the package bubblewrap")));
}

}  // namespace
}  // namespace wels
