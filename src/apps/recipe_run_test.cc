// Runs of recipes whose stages need no model: what stops them, and what is refused.
// tests/cli/r1_test.sh runs all kinds.
#include "apps/recipe_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "base/signal.h"
#include "base/test_folder.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

class RecipeRunTest : public testing::Test {
 protected:
  TestFolder folder;
  json recipe = {
      {"name", "data"}, {"evaluation", {{"task", "parity:8"}}}, {"stages", json::array()}};

  RecipeRunTest() {
    add("one", "parity:8");
    add("two", "addition:2");
  }
  void add(const std::string& name, const std::string& task) {
    recipe["stages"].push_back(
        {{"name", name}, {"kind", "examples"}, {"task", task}, {"count", 3}, {"seed", 5}});
  }
  int run(const std::string& from = "") {
    RecipeRunFlags f;
    f.out = folder / "out";
    f.from = from;
    return run_recipe(parse_recipe(recipe.dump(), "r.json"), f);
  }
  std::string refusal(const std::string& from = "") {
    return error_of([&] { run(from); });
  }
  std::string place(const std::string& path) const { return folder / ("out/" + path); }
  void write(const std::string& path, const json& j) const {
    write_file_atomic(place(path), j.dump());
  }
};

TEST_F(RecipeRunTest, ASignalBehindAStagesLastStepStopsTheRunBeforeTheNext) {
  // The card is written when a stage is done; its file is a pipe here, which the writer waits for
  // until the reader, who has sent the signal, opens it.
  make_folder(folder / "out");
  std::string card = place("report_card.md");
  ASSERT_EQ(::mkfifo(card.c_str(), 0600), 0);
  testing::internal::CaptureStderr();
  std::thread reader([&] {
    while (!fs::exists(place("01-one/done.json"))) std::this_thread::yield();
    std::raise(SIGINT);
    std::ifstream in(card);
    for (std::string line; std::getline(in, line);) {
    }
  });
  int code = run();
  reader.join();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("stopping cleanly"));
  EXPECT_EQ(code, 130);
  EXPECT_TRUE(fs::exists(place("01-one/done.json")));
  EXPECT_FALSE(fs::exists(place("02-two")));
  EXPECT_FALSE(stop_requested());
  fs::remove(card);
  EXPECT_EQ(run(), 0);
  EXPECT_TRUE(fs::exists(place("02-two/done.json")));
}

TEST_F(RecipeRunTest, StagesOfAnotherRecipeAreNamed) {
  EXPECT_EQ(run(), 0);
  std::string card = read_file(place("report_card.json"));
  json extra = recipe["stages"][0];
  extra["name"] = "extra";
  recipe["stages"].insert(recipe["stages"].begin() + 1, extra);
  EXPECT_THAT(refusal(), HasSubstr("holds stages that this recipe does not have: 02-two; give "
                                   "another --out, or remove their folders"));
  EXPECT_FALSE(fs::exists(place("02-extra")));
  EXPECT_EQ(read_file(place("report_card.json")), card);
  fs::remove_all(place("02-two"));
  fs::create_directories(place("2026-notes"));  // no stage's
  EXPECT_EQ(run(), 0);
}

TEST_F(RecipeRunTest, AStageThatCameToNothingMayHaveOtherSettings) {
  json& task = recipe["stages"][1]["task"];
  EXPECT_EQ(run(), 0);
  task = "addition:3";
  EXPECT_THAT(refusal(), HasSubstr("was run with task \"addition:2\", not \"addition:3\""));
  fs::remove(place("02-two/done.json"));
  EXPECT_THAT(refusal(), HasSubstr("--from two runs it again"));  // it has answers
  fs::remove_all(place("02-two/answers"));
  EXPECT_EQ(run(), 0);
  EXPECT_EQ(run(), 0);
}

TEST_F(RecipeRunTest, DamagedMarksAreNamedWithWhatToDo) {
  EXPECT_EQ(run(), 0);
  std::string started = read_file(place("01-one/started.json")),
              done = read_file(place("01-one/done.json"));
  for (const char* text : {"{", "5", "{}", R"({"kind": 1, "settings": {}, "from": "", "data": []})",
                           R"({"kind": "examples", "settings": 1, "from": "", "data": []})",
                           R"({"kind": "examples", "settings": {}, "from": "", "data": 2})"}) {
    write_file_atomic(place("01-one/started.json"), text);
    EXPECT_THAT(refusal(), HasSubstr("01-one/started.json: ")) << text;
    EXPECT_THAT(refusal(), HasSubstr("remove the stage's folder to run it again")) << text;
  }
  write_file_atomic(place("01-one/started.json"), started);
  json wrong = json::parse(done);
  wrong["outcome"]["seconds"] = "long";
  for (const std::string& text : {std::string("["), std::string("{}"), wrong.dump()}) {
    write_file_atomic(place("01-one/done.json"), text);
    EXPECT_THAT(refusal(), HasSubstr("01-one")) << text;
    EXPECT_THAT(refusal(), HasSubstr("folder to run it again")) << text;
  }
  write_file_atomic(place("01-one/done.json"), done);
  EXPECT_EQ(run(), 0);
}

// --- before anything runs ---

class RecipeCheckTest : public RecipeRunTest {
 protected:
  RecipeCheckTest() {
    recipe["stages"] = json::parse(R"([
      {"name": "base", "kind": "base", "task": "parity:8"},
      {"name": "rl", "kind": "rl", "from": "base", "task": "parity:8"},
      {"name": "cold", "kind": "sample", "from": "rl", "task": "parity:8"},
      {"name": "sft", "kind": "sft", "from": "rl", "data": ["cold"]}])");
  }
  // With this setting of the stage.
  std::string with(size_t stage, const char* key, const json& value) {
    json before = recipe;
    recipe["stages"][stage][key] = value;
    std::string out = refusal();
    EXPECT_FALSE(fs::exists(folder / "out")) << out;
    recipe = before;
    return out;
  }
};

TEST_F(RecipeCheckTest, SettingsThatNoModelIsNeededForAreRefusedWithTheirPlace) {
  const char* rl = "r.json: stages[1] (rl)";
  EXPECT_THAT(with(1, "samples", 1), HasSubstr(std::string(rl) + ".samples: one answer has no"));
  EXPECT_THAT(with(1, "mini_batches", 2), HasSubstr(std::string(rl) + ".algorithm: reinforce"));
  recipe["stages"][1]["algorithm"] = "grpo";
  EXPECT_THAT(with(1, "mini_batches", 99), HasSubstr(std::string(rl) + ".mini_batches: 99 are"));
  EXPECT_THAT(with(1, "algorithm", "ppo"), HasSubstr(std::string(rl) + ".algorithm: "));
  EXPECT_THAT(with(1, "template", "none"), HasSubstr(std::string(rl) + ": chat template"));
  EXPECT_THAT(with(1, "max_tokens", 100000), HasSubstr(std::string(rl) + ".max_tokens: 100000"));
  EXPECT_THAT(with(1, "task", "parity:1"), HasSubstr(std::string(rl) + ".task: parity: none of"));
  EXPECT_THAT(with(0, "preset", "huge"), HasSubstr("stages[0] (base).preset: unknown"));
  EXPECT_THAT(with(0, "seq", 100000), HasSubstr("stages[0] (base).seq: 100000 is not between"));
  EXPECT_THAT(with(2, "max_tokens", 100000), HasSubstr("stages[2] (cold).max_tokens: 100000"));
  EXPECT_THAT(with(3, "template", "mine"), HasSubstr("stages[3] (sft): chat template"));
  recipe["stages"][3]["lora"] = 4;
  EXPECT_THAT(with(3, "bias_update", 0.1), HasSubstr("stages[3] (sft).bias_update: moves"));
  EXPECT_THAT(with(3, "lora_targets", "x_proj"), HasSubstr("(sft).lora_targets: the model has no"));
}

TEST_F(RecipeCheckTest, TheEvaluationIsCheckedToo) {
  auto with_evaluation = [&](const json& evaluation) {
    recipe["evaluation"] = evaluation;
    return refusal();
  };
  EXPECT_THAT(with_evaluation({{"task", "parity:8"}, {"max_tokens", 100000}}),
              HasSubstr("r.json: evaluation.max_tokens: 100000 are beyond the model's"));
  EXPECT_THAT(with_evaluation({{"task", "parity:1"}}),
              HasSubstr("r.json: evaluation.task: parity: none of"));
}

TEST_F(RecipeCheckTest, NumbersOutOfRangeAreSaidAsTheCommandLineSaysThem) {
  EXPECT_THAT(with(1, "temperature", 100),
              HasSubstr("(rl).temperature: 100 is out of range; use 0.05 to 10"));
  EXPECT_THAT(with(1, "steps", -1), HasSubstr("(rl).steps: -1 is out of range; use 0 or more"));
  EXPECT_THAT(with(1, "seed", -1), HasSubstr("(rl).seed: is -1, not 0 or more"));
}

TEST_F(RecipeRunTest, AnErrorOfARunningStageHasItsPlace) {
  recipe["stages"][0]["task"] = folder.file("q.jsonl", "{\"question\": \"q?\", \"answer\": \"a\"}");
  recipe["stages"].erase(1);
  fs::create_directories(place("01-one/answers/examples.jsonl"));  // in the way of the file
  EXPECT_THAT(refusal(), HasSubstr("r.json: stages[0] (one): "));
}

}  // namespace
}  // namespace wels
