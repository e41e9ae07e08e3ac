// Recipes of `wels r1`: stages from a base model to a reasoner, as data. A recipe is a JSON object:
//
//   {"name": "r1 nano", "seed": 1,
//    "evaluation": {"task": "parity:20", "items": 128, "samples": 8, "max_tokens": 64},
//    "stages": [{"name": "base", "kind": "base", "preset": "nano", "task": "parity:20"},
//               {"name": "zero", "kind": "rl", "from": "base", "task": "parity:20"}, ...]}
//
// What a stage has beside name, kind, from and data are settings: the flags of the command that
// does the same (apps/flag_settings.h). `from` and `data` name earlier stages, or paths.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace wels {

// What a stage takes and leaves behind.
enum class StageKind {
  kBase,       // a new model by supervised learning of tasks             → model
  kRl,         // from a model, reinforcement learning                    → model
  kSft,        // from a model, on data or tasks                          → model
  kSample,     // from a model, its right and readable answers to tasks   → data
  kExamples,   // the tasks' own answers (general data)                   → data
  kDocuments,  // texts of files, cut for a model, a part held out        → data
  kReplay,     // texts to be repeated: of a corpus, or the model's own   → data
  kMerge,      // adapters of an sft or rl stage joined with their model  → model
  kEval,       // from a model, how good it is at other tasks, or (without
               // a task) at what the recipe's evaluation asks            → nothing
};
const char* name(StageKind kind);
inline bool makes_model(StageKind k) {
  return k == StageKind::kBase || k == StageKind::kRl || k == StageKind::kSft ||
         k == StageKind::kMerge;
}
inline bool makes_texts(StageKind k) {
  return k == StageKind::kDocuments || k == StageKind::kReplay;
}
inline bool makes_data(StageKind k) {
  return k == StageKind::kSample || k == StageKind::kExamples || makes_texts(k);
}

struct RecipeStage {
  int number = 0;  // from 1
  std::string name;
  StageKind kind = StageKind::kBase;
  std::string from;               // stage or path; empty: none
  std::vector<std::string> data;  // stages or paths
  nlohmann::json settings;        // an object, with a seed
  std::string where;              // for errors: "r1.json: stages[2] (cold_data)"
  std::string folder() const;     // "03-cold_data"
};

struct Recipe {
  std::string name;
  uint64_t seed = 1;          // a stage's own, where it has none: 1000 · seed + its number
  nlohmann::json evaluation;  // an object: of every model; without the next two
  // Held-out texts by name: of stages, or paths ("texts": {"domain": "documents"}); bits per byte.
  std::vector<std::pair<std::string, std::string>> texts;
  std::vector<std::string> examples;  // files whose held-out answers are scored ("examples")
  std::string where;                  // of the evaluation, for errors
  std::vector<RecipeStage> stages;
  const RecipeStage* find(const std::string& stage) const;  // null: none
};

// Throws Error naming the place for what is not a recipe: syntax, unknown and missing fields, wrong
// types, names that are taken or unknown. The settings are the stages' to check.
Recipe parse_recipe(const std::string& text, const std::string& where);

// The stage and all that depend on it, in order.
std::vector<const RecipeStage*> stages_from(const Recipe& recipe, const RecipeStage& first);

}  // namespace wels
