// How good a model is at tasks, as `wels eval --task` and every command that compares models ask
// it.
#pragma once
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/loaded_model.h"
#include "rl/evaluation.h"

namespace wels {

struct TaskEvalFlags {
  std::string task;  // TaskMixture; empty: none
  EvaluationSettings settings;
  int64_t max_tokens = 256;
  bool no_think = false;
  void add(CLI::App* sub);
};

// Held-out questions of the tasks, in the model's own chat template. Throws Error where the model
// has no tokenizer, and as evaluate_tasks does.
TaskEvaluation evaluate_on_tasks(LoadedModel& m, const TaskEvalFlags& f);

// {"task", "items", "greedy": {"accuracy", ...}, "samples", "sampled", "pass_at_k", "tasks":
// {...}}; what was not sampled is not there.
nlohmann::ordered_json json_of(const TaskEvalFlags& f, const TaskEvaluation& e);

}  // namespace wels
