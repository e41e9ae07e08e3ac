// The stages of a recipe as the jobs that `wels sft`, `wels rl`, `wels eval` and `wels tasks` are.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "apps/r1_recipe.h"
#include "apps/recipe_texts.h"
#include "apps/task_eval.h"

namespace wels {

// Throws Error naming the place for settings that the stage's job does not have or refuses, as far
// as that can be seen before the stages before it have run.
void check_stage(const RecipeStage& stage, const Recipe& recipe);
// Without a task where the recipe's evaluation has texts or examples only.
TaskEvalFlags evaluation_flags(const Recipe& recipe);
// An eval stage that asks what the recipe's evaluation does.
bool is_of_recipe_evaluation(const RecipeStage& stage);

// Files that the recipe's evaluation names.
struct EvaluatedData {
  std::vector<std::pair<std::string, std::string>> texts;  // name, file
  std::vector<std::string> examples;
};
// json_of the tasks' evaluation, where there is a task, and "texts": {name: {"bits_per_byte",
// "bytes"}}, "examples": {"nats_per_token", "token_accuracy", "examples"} of what there is. Throws
// Error.
nlohmann::ordered_json evaluate_model(LoadedModel& m, const TaskEvalFlags& f,
                                      const EvaluatedData& data);

struct StageInputs {
  std::string from;               // model or run folder; empty: none
  std::string from_hash;          // of its weights
  std::vector<std::string> data;  // files or folders
};

struct StageOutcome {
  bool stopped = false;  // by a signal: the same call goes on
  int64_t steps = 0, trained_tokens = 0, sampled_tokens = 0;
  double seconds = 0;                                              // of its steps or questions
  nlohmann::ordered_json more = nlohmann::ordered_json::object();  // what only this kind has to say
  nlohmann::ordered_json json() const;                             // all but `stopped`
};

// Runs the stage in `folder`, which exists, or goes on there; ends with the same bits. Throws
// Error.
StageOutcome run_recipe_stage(const RecipeStage& stage, const StageInputs& inputs,
                              const std::string& folder, const DeviceFlags& device);

// Hash of what a stage left in its folder, or of a path that a recipe names: the weights of the
// checkpoint that `from` means, or the lines of data. Throws Error where there is nothing.
std::string hash_of_model(const std::string& path);
std::string hash_of_data(const std::string& path);
std::string hash_of_texts(const std::string& path);  // any text, or a folder of some
// {setting: hash} of what the files hold that settings name; empty: they name none.
nlohmann::json hash_of_files(const RecipeStage& stage);

// Of a model, run folder, or GGUF file.
ModelConfig config_of_model(const std::string& path);

}  // namespace wels
