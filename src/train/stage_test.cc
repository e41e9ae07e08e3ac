#include "train/stage.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <thread>

#include "backend/registry.h"
#include "base/file.h"
#include "base/signal.h"
#include "formats/json.h"
#include "model/tiny_config_test.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

// Learns nothing; Ctrl-C comes where the test says, and is not waited for.
class Idle : public Stage {
 public:
  nlohmann::json own = nlohmann::json::object();
  int64_t stop_in_step = 0;
  bool stop_in_evaluation = false, stop_in_average = false, stop_in_rehearsal = false;
  double held_out = 1;
  std::map<int64_t, double> held_out_of;  // a step, where it is another
  int64_t not_finite_from = 0;
  bool sample_fails = false;
  int evaluations = 0, rehearsals = 0;
  int64_t steps = -1;  // after which it has enough

  nlohmann::json settings() const override { return own; }
  StageStep step(Trainer&, const TrainerState& state, double, StepMetrics&) override {
    if (state.step + 1 == stop_in_step) stop();
    step_ = state.step + 1;
    StageStep done;
    done.stats.skipped = not_finite_from > 0 && step_ >= not_finite_from;
    done.tokens = 1;
    done.nothing_to_learn = true;
    return done;
  }
  double validate(Trainer&, StepMetrics* m, bool averaged) override {
    ++evaluations;
    auto other = held_out_of.find(step_);
    double value = other == held_out_of.end() ? held_out : other->second;
    if (m && !averaged) m->add(metric::kValLoss, value);
    if (averaged ? stop_in_average : stop_in_evaluation) stop();
    return value;
  }
  int64_t steps_left() const override { return steps < 0 ? -1 : steps - step_; }
  std::string sample() override {
    if (sample_fails) throw Error("prompt", "does not fit");
    return {};
  }
  void rehearse(Trainer&) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (++rehearsals == 2 && stop_in_rehearsal) stop();
  }

 private:
  int64_t step_ = 0;
  [[noreturn]] static void stop() {
    std::raise(SIGINT);
    throw Interrupted();
  }
};

class StageTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "wels_stage_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    s_.out = folder_ + "/run";
    s_.schedule.steps = 3;
    s_.quiet = true;
    model_.init(DType::kF32, 1, true);
  }
  void TearDown() override { fs::remove_all(folder_); }
  StageResult run(Idle& stage) {
    CheckpointParts parts = whole_model(model_, {{"tokenizer.json", "{}"}});
    if (average_fails_) {
      parts.save_model = [whole = parts.save_model](const std::string& folder) {
        whole(folder);
        if (folder.ends_with("ema.tmp")) throw Error(folder, "the disk is full");
      };
    }
    return run_stage({.dev = *dev_,
                      .model = model_,
                      .parts = parts,
                      .report = [this](int64_t steps) { planned_ = steps; }},
                     s_, stage);
  }
  std::string state_path(int64_t step) { return checkpoint_folder(s_.out, step) + "/trainer.json"; }
  int64_t best_step(int64_t step) {
    return parse_json(read_file(state_path(step)), "")["settings"]["best_step"].get<int64_t>();
  }
  void expect_divergence(Idle& stage, const std::string& text) {
    try {
      run(stage);
      ADD_FAILURE() << "a diverged run ends well";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr(text));
      EXPECT_THAT(e.what(), testing::HasSubstr("start again with a lower --lr in another --out"));
    }
  }
  bool average_fails_ = false;
  int64_t planned_ = 0;  // steps, as the report was told last
  std::string folder_;   // tests run side by side
  std::unique_ptr<Device> dev_ = make_device("ref");
  Model model_{tiny_dense_config(8)};
  StageSettings s_;
};

TEST_F(StageTest, ARunGoesOnWithAllSettingsThatItHad) {
  Idle stage;
  stage.own = {{"template", "deepseek-v3"}};
  EXPECT_EQ(run(stage).steps, 3);
  EXPECT_EQ(run(stage).steps, 3);
  stage.own = nlohmann::json::object();
  try {
    run(stage);
    ADD_FAILURE() << "goes on without its template";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(),
                testing::HasSubstr("was started with template \"deepseek-v3\", which is not set"));
  }
}

TEST_F(StageTest, AnInterruptedStepIsNotEvaluated) {
  Idle stage;
  stage.stop_in_step = 3;
  StageResult r = run(stage);
  EXPECT_TRUE(r.stopped && !r.evaluated);
  EXPECT_EQ(r.steps, 2);
  EXPECT_EQ(r.best, -1);
  EXPECT_EQ(stage.evaluations, 0);
  EXPECT_THAT(list_checkpoints(s_.out), testing::ElementsAre(2));
  stage.stop_in_step = 0;
  r = run(stage);
  EXPECT_TRUE(!r.stopped && r.evaluated);
  EXPECT_EQ(r.best, 1);
}

TEST_F(StageTest, AnInterruptedLastEvaluationIsMadeUpFor) {
  s_.eval_every = 1;
  Idle stage;
  stage.stop_in_step = 3;
  EXPECT_TRUE(run(stage).evaluated);
  stage = Idle();
  stage.stop_in_evaluation = true;
  StageResult r = run(stage);
  EXPECT_TRUE(r.stopped && !r.evaluated);
  EXPECT_EQ(r.steps, 3);
  EXPECT_EQ(stage.evaluations, 1);
  EXPECT_EQ(best_step(3), 2);
  stage = Idle();
  stage.held_out = 0.5;
  r = run(stage);
  EXPECT_TRUE(!r.stopped && r.evaluated);
  EXPECT_EQ(r.best, 0.5);
  EXPECT_EQ(best_step(3), 3);
}

// What was cut short in the middle of a run belongs to its step in the end, and once.
TEST_F(StageTest, AnInterruptedEvaluationStandsInItsStepsMetricsOnceItIsMadeUpFor) {
  s_.eval_every = 2;
  s_.ema = 0.9;
  s_.schedule.steps = 4;
  for (bool average : {false, true}) {
    s_.out = fmt::format("{}/run{}", folder_, average);
    Idle stage;
    (average ? stage.stop_in_average : stage.stop_in_evaluation) = true;
    StageResult r = run(stage);
    EXPECT_TRUE(r.stopped && !r.evaluated);
    EXPECT_EQ(r.steps, 2);
    run(stage);  // again, before it is made up for
    stage = Idle();
    stage.held_out = 0.5;
    r = run(stage);
    EXPECT_TRUE(!r.stopped && r.evaluated);
    EXPECT_EQ(stage.evaluations, 4);  // of steps 2 and 4, each with its average's
    std::vector<StepMetrics> all = read_metrics(s_.out + "/metrics.jsonl");
    ASSERT_EQ(all.size(), 4u);
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(all[i].step, static_cast<int64_t>(i) + 1);
      EXPECT_EQ(std::isfinite(all[i].scalar(metric::kValLoss)), i % 2 == 1) << "step " << i + 1;
      EXPECT_TRUE(std::isfinite(all[i].scalar(metric::kTokens)));
    }
    EXPECT_EQ(std::count_if(all[1].scalars.begin(), all[1].scalars.end(),
                            [](const auto& s) { return s.first == metric::kValLoss; }),
              1);
    EXPECT_EQ(all[1].scalar(metric::kValLoss), 0.5);
  }
}

TEST_F(StageTest, TheBestCheckpointIsTheBestOfThoseThatAreSaved) {
  s_.schedule.steps = 6;
  s_.save_every = 3;
  s_.eval_every = 2;
  Idle stage;
  stage.held_out_of = {{2, 0.1}, {3, 0.5}, {4, 0.2}, {6, 0.7}};
  EXPECT_EQ(run(stage).best, 0.5);
  EXPECT_EQ(stage.evaluations, 4);  // those that are saved as well
  EXPECT_EQ(best_step(6), 3);
  EXPECT_EQ(run(stage).best, 0.5);
}

TEST_F(StageTest, WhatIsSavedWhileStepsAreNotFiniteTakesNoGoodCheckpointsPlace) {
  s_.schedule.steps = 40;
  s_.save_every = s_.keep = 1;
  Idle stage;
  stage.not_finite_from = 4;
  expect_divergence(stage, "5 steps in a row are not finite; the last good checkpoint is " +
                               checkpoint_folder(s_.out, 3));
  EXPECT_EQ(list_checkpoints(s_.out).back(), 3);
  s_.schedule.steps = 4;
  s_.out += "_short";
  expect_divergence(stage, "step 4, the last one, is not finite; the last good checkpoint is " +
                               checkpoint_folder(s_.out, 3));
}

TEST_F(StageTest, ARunWhoseLastValidationIsNotFiniteFails) {
  s_.save_every = 1;
  Idle stage;
  stage.held_out_of = {{2, NAN}, {3, INFINITY}};
  expect_divergence(stage, "validation of step 3 is not finite; the last good checkpoint is " +
                               checkpoint_folder(s_.out, 1));
  EXPECT_THAT(list_checkpoints(s_.out), testing::ElementsAre(1));
  s_.out += "_at_once";
  stage.held_out = NAN;
  stage.held_out_of.clear();
  expect_divergence(stage, "no checkpoint is from before");
}

TEST_F(StageTest, ABestValidationThatIsNotFiniteIsNone) {
  Idle stage;
  run(stage);
  nlohmann::json state = parse_json(read_file(state_path(3)), "");
  state["best_validation"] = nullptr;
  write_file_atomic(state_path(3), state.dump());
  EXPECT_EQ(run(stage).best, 1);
}

TEST_F(StageTest, AnAverageThatCannotBeWrittenLeavesNothing) {
  s_.ema = 0.9;
  average_fails_ = true;
  Idle stage;
  EXPECT_THROW(run(stage), Error);
  EXPECT_FALSE(fs::exists(s_.out + "/ema.tmp"));
  EXPECT_THAT(list_checkpoints(s_.out), testing::ElementsAre(3));
}

TEST_F(StageTest, DamagedStatesAreErrorsThatNameTheField) {
  Idle stage;
  run(stage);
  nlohmann::json good = parse_json(read_file(state_path(3)), "");
  auto expect = [&](const char* place, const nlohmann::json& value, const std::string& text) {
    nlohmann::json bad = good;
    bad[nlohmann::json::json_pointer(place)] = value;
    write_file_atomic(state_path(3), bad.dump());
    try {
      run(stage);
      ADD_FAILURE() << place << " " << value.dump();
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr(text));
      EXPECT_THAT(e.what(), testing::HasSubstr("to continue from the start"));
    }
  };
  expect("/step", -1, "\"step\" is -1");
  expect("/step", 2, "\"step\" is 2, its folder's is 3");
  expect("/sequences", -5, "\"sequences\" is -5");
  expect("/tokens", 1e30, "\"tokens\" has the wrong type");
  expect("/optimizer_steps", "3", "\"optimizer_steps\" has the wrong type");
  expect("/settings", nlohmann::json::array(), "\"settings\" has the wrong type");
  expect("/settings/best_step", "3", "\"best_step\" has the wrong type");
  expect("/settings/unevaluated", 1, "\"unevaluated\" has the wrong type");
  expect("/settings/steps", "3", "\"steps\" has the wrong type");
  expect("/settings/warmup", nullptr, "\"warmup\" has the wrong type");
  write_file_atomic(state_path(3), good.dump());
  EXPECT_EQ(run(stage).steps, 3);
}

TEST_F(StageTest, FoldersThatOnlyLookLikeCheckpointsAreNamed) {
  for (const char* name : {"step-", "step-7", "step-99999999999999999999999"}) {
    fs::create_directories(s_.out + "/checkpoints/" + name);
    Idle stage;
    try {
      run(stage);
      ADD_FAILURE() << name;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr(std::string("checkpoints/") + name + ": "));
    }
    fs::remove_all(s_.out);
  }
}

TEST_F(StageTest, WhatAKillLeftOfACheckpointThatWasRemovedGoes) {
  s_.save_every = s_.keep = 1;
  Idle stage;
  run(stage);
  fs::rename(checkpoint_folder(s_.out, 3), s_.out + "/checkpoints/removed-00000003");
  EXPECT_THAT(list_checkpoints(s_.out), testing::ElementsAre(1));  // the best
  EXPECT_EQ(run(stage).steps, 3);
  EXPECT_FALSE(fs::exists(s_.out + "/checkpoints/removed-00000003"));
  EXPECT_THAT(list_checkpoints(s_.out), testing::ElementsAre(1, 3));
}

TEST_F(StageTest, AStageThatKnowsHowManyStepsAreLeftEndsTheRun) {
  Idle stage;
  stage.steps = 2;
  s_.schedule.steps = 1000;
  EXPECT_EQ(run(stage).steps, 2);
  Idle over;
  over.steps = 0;
  StageResult again = run(over);
  EXPECT_EQ(again.steps, 2);
  EXPECT_FALSE(again.stopped);
  EXPECT_THAT(list_checkpoints(s_.out), testing::ElementsAre(2));
}

TEST_F(StageTest, ASampleThatFailsDoesNotEndTheRun) {
  s_.sample_every = 1;
  Idle stage;
  stage.sample_fails = true;
  EXPECT_EQ(run(stage).steps, 3);
  EXPECT_EQ(read_metrics(s_.out + "/metrics.jsonl").size(), 3u);
}

TEST_F(StageTest, ARunThatIsStoppedWhileItsStepsAreMeasuredHasNotBegun) {
  s_.minutes = 1e-9;
  Idle stage;
  stage.stop_in_rehearsal = true;
  EXPECT_THROW(run(stage), Interrupted);
  EXPECT_TRUE(list_checkpoints(s_.out).empty());
  stage = Idle();
  EXPECT_EQ(run(stage).steps, 10);  // the least that is made
  EXPECT_EQ(planned_, 10);
  EXPECT_EQ(stage.rehearsals, 4);
}

}  // namespace
}  // namespace wels
