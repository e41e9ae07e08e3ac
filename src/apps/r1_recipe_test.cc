// Recipes: what they say, what depends on what, and what is no recipe. tests/cli/r1_test.sh runs
// one.
#include "apps/r1_recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/flag_settings.h"
#include "base/error.h"

namespace wels {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json recipe_json() {
  return json::parse(R"({
    "name": "r", "seed": 7, "evaluation": {"task": "parity:4"},
    "stages": [
      {"name": "base", "kind": "base", "task": "parity:4", "lr": 0.002},
      {"name": "zero", "kind": "rl", "from": "base", "task": "parity:4", "seed": 5},
      {"name": "cold", "kind": "sample", "from": "zero", "task": "parity:4"},
      {"name": "general", "kind": "examples", "task": "addition:2", "count": 3},
      {"name": "tuned", "kind": "sft", "from": "base", "data": ["cold", "general"]},
      {"name": "look", "kind": "eval", "from": "tuned", "task": "gcd"}]})");
}

std::string error_of(const json& j) {
  try {
    parse_recipe(j.dump(), "r.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "none";
}

TEST(Recipe, SaysWhatItsStagesAre) {
  Recipe r = parse_recipe(recipe_json().dump(), "r.json");
  ASSERT_EQ(r.stages.size(), 6u);
  EXPECT_EQ(r.stages[4].folder(), "05-tuned");
  EXPECT_EQ(r.stages[4].kind, StageKind::kSft);
  EXPECT_EQ(r.stages[4].from, "base");
  EXPECT_EQ(r.stages[4].data, (std::vector<std::string>{"cold", "general"}));
  EXPECT_EQ(r.stages[0].settings, json({{"task", "parity:4"}, {"lr", 0.002}, {"seed", 7001}}));
  EXPECT_EQ(r.stages[1].settings["seed"], 5);  // its own
  EXPECT_EQ(r.evaluation["seed"], 7);
  EXPECT_EQ(r.find("look"), &r.stages[5]);
  EXPECT_EQ(r.find("nothing"), nullptr);
}

TEST(Recipe, EvaluationNamesHeldOutTextsByStageOrPath) {
  json j = recipe_json();
  j["stages"].push_back(
      {{"name", "docs"}, {"kind", "documents"}, {"from", "base"}, {"data", {"/"}}});
  j["evaluation"]["texts"] = {{"domain", "docs"}, {"general", "/dev/null"}};
  Recipe r = parse_recipe(j.dump(), "r.json");
  EXPECT_FALSE(r.evaluation.contains("texts"));
  EXPECT_THAT(r.texts, testing::ElementsAre(testing::Pair("domain", "docs"),
                                            testing::Pair("general", "/dev/null")));
  j["evaluation"]["texts"] = {{"domain", "cold"}};
  EXPECT_THAT(error_of(j), HasSubstr("texts.domain: \"cold\" is a stage of kind sample"));
  j["evaluation"]["texts"] = {{"domain", "nothing"}};
  EXPECT_THAT(error_of(j), HasSubstr("\"nothing\" is neither an earlier stage nor a path"));
  j["evaluation"]["texts"] = json::array({"docs"});
  EXPECT_THAT(error_of(j), HasSubstr("not an object of names"));
  j["evaluation"].erase("texts");
  j["stages"].back().erase("data");
  EXPECT_THAT(error_of(j), HasSubstr("has no \"data\""));
}

TEST(Recipe, KnowsWhatDependsOnAStage) {
  Recipe r = parse_recipe(recipe_json().dump(), "r.json");
  auto names = [&](const char* first) {
    std::string out;
    for (const RecipeStage* s : stages_from(r, *r.find(first))) out += s->name + " ";
    return out;
  };
  EXPECT_EQ(names("base"), "base zero cold tuned look ");
  EXPECT_EQ(names("zero"), "zero cold tuned look ");
  EXPECT_EQ(names("general"), "general tuned look ");
  EXPECT_EQ(names("look"), "look ");
}

TEST(Recipe, WhatIsWrongIsNamedByItsPlace) {
  auto with = [](const char* pointer, const json& value) {
    json j = recipe_json();
    j[json::json_pointer(pointer)] = value;
    return error_of(j);
  };
  EXPECT_THAT(with("/nmae", 1), HasSubstr("r.json: there is no field \"nmae\""));
  EXPECT_THAT(with("/seed", -1), HasSubstr("r.json.seed: is -1, not a whole number"));
  EXPECT_THAT(with("/stages", json::array()), HasSubstr("r.json.stages: is [], not a list"));
  EXPECT_THAT(with("/stages/1", 3), HasSubstr("stages[1]: is not an object"));
  EXPECT_THAT(with("/stages/1/kind", "ppo"),
              HasSubstr("stages[1] (zero).kind: there is no \"ppo\""));
  EXPECT_THAT(with("/stages/1/from", "tuned"),  // a later one
              HasSubstr("stages[1] (zero).from: \"tuned\" is neither an earlier stage nor a path"));
  EXPECT_THAT(with("/stages/5/from", "cold"),
              HasSubstr("stages[5] (look).from: \"cold\" is a stage of kind sample, which leaves"));
  EXPECT_THAT(with("/stages/4/data", json::array({1})), HasSubstr("stages[4] (tuned).data"));
  EXPECT_THAT(with("/stages/4/name", "a/b"), HasSubstr("names a folder"));
  EXPECT_THAT(with("/stages/4/name", "zero"), HasSubstr("the name is taken"));
  json j = recipe_json();
  j["stages"][1].erase("from");
  EXPECT_THAT(error_of(j), HasSubstr("stages[1] (zero): has no \"from\""));
  EXPECT_EQ(error_of(recipe_json()), "none");
}

// Flags of every kind that the commands have.
struct Flags {
  double rate = 1;
  int64_t steps = 2;
  std::string task, path;
  bool on = false;
  std::optional<bool> maybe;
  std::string set(const json& j, const std::vector<std::string>& positional = {}) {
    CLI::App app;
    app.add_option("--learning-rate", rate)->check(CLI::PositiveNumber);
    app.add_option("--steps", steps);
    app.add_option("--task", task)->required();
    app.add_option("path", path);
    app.add_option("--maybe", maybe);
    app.add_option("--out", task);
    app.add_flag("--on", on);
    try {
      apply_settings(app, j, "here", positional, {"out"});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
};

TEST(FlagSettings, StandForTheFlagsOfACommand) {
  Flags f;
  json j = {{"learning_rate", 2.5e-7},
            {"steps", 9},
            {"task", "parity:2-4,addition*0.5"},
            {"on", true},
            {"maybe", false}};
  EXPECT_EQ(f.set(j, {"a folder"}), "");
  EXPECT_EQ(f.rate, 2.5e-7);
  EXPECT_EQ(f.steps, 9);
  EXPECT_EQ(f.task, "parity:2-4,addition*0.5");
  EXPECT_EQ(f.path, "a folder");
  EXPECT_TRUE(f.on);
  EXPECT_EQ(f.maybe, false);
  Flags without;
  EXPECT_EQ(without.set({{"task", "t"}, {"on", false}}), "");
  EXPECT_FALSE(without.on);
  EXPECT_EQ(without.maybe, std::nullopt);
  EXPECT_EQ(without.steps, 2);
}

TEST(FlagSettings, RefuseWhatIsNoneOrOfAnotherType) {
  auto refused = [](const char* key, const json& value) {
    json j = {{"task", "t"}};
    j[key] = value;
    return Flags().set(j);
  };
  EXPECT_THAT(refused("stepps", 1), HasSubstr("here: there is no setting \"stepps\"; use"));
  EXPECT_THAT(refused("learning-rate", 1), HasSubstr("there is no setting"));
  EXPECT_THAT(refused("out", "x"), HasSubstr("there is no setting \"out\""));  // reserved
  EXPECT_THAT(refused("path", "x"), HasSubstr("there is no setting"));         // positional
  EXPECT_THAT(refused("steps", 1.5), HasSubstr("here.steps: is 1.5, not a whole number"));
  EXPECT_THAT(refused("steps", "1"), HasSubstr("here.steps: is \"1\", not a whole number"));
  EXPECT_THAT(refused("learning_rate", true), HasSubstr("is true, not a number"));
  EXPECT_THAT(refused("learning_rate", -1), HasSubstr("here.learning_rate: -1 is out of range; use "));
  EXPECT_THAT(refused("on", 1), HasSubstr("here.on: is 1, not true or false"));
  EXPECT_THAT(refused("maybe", "yes"), HasSubstr("not true or false"));
  EXPECT_THAT(refused("task", json::array({"a"})), HasSubstr("not a string"));
  EXPECT_THAT(Flags().set(json::object()), HasSubstr("here: task is required"));
}

}  // namespace
}  // namespace wels
