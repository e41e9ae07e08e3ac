// How good a model is at tasks, as `wels eval --task` and every command that compares models ask
// it.
#pragma once
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/loaded_model.h"
#include "rl/evaluation.h"
#include "rl/rephrase.h"

namespace wels {

// The template of prompts by a flag: "auto" is the model's own, else DeepSeek-V3.1's. Throws Error.
ChatTemplate task_template(const std::string& name, const std::string& folder);
void add_task_template_flag(CLI::App* sub, std::string& name);

struct TaskEvalFlags {
  std::string task;  // TaskMixture; empty: none
  EvaluationSettings settings;
  int64_t max_tokens = 256;
  bool no_think = false;
  std::string chat_template = "auto";  // task_template
  ThinkBounds think;
  int64_t rephrase = 0;  // versions of each question (rl/rephrase.h); 0: none
  bool curve = false;
  std::vector<int64_t> budgets;  // of the curve
  void add(CLI::App* sub);
};

// Held-out questions of the tasks, in the model's own chat template. Throws Error where the model
// has no tokenizer, and as evaluate_tasks does.
TaskEvaluation evaluate_on_tasks(LoadedModel& m, const TaskEvalFlags& f);

// Answers after `f.rephrase` rephrasings of each of these questions.
RephraseEvaluation evaluate_rephrased_on_tasks(LoadedModel& m, const TaskEvalFlags& f);

// The same as evaluate_on_tasks with each of these budgets of thought. none: 0 and the powers of
// two from 4 on that are less than what an answer may have.
struct CurvePoint {
  int64_t budget;
  TaskEvaluation evaluation;
};
std::vector<CurvePoint> thought_curve(LoadedModel& m, TaskEvalFlags f,
                                      std::vector<int64_t> budgets);

// {"tokens", "accuracy"} of the vote and of the joint answer.
nlohmann::ordered_json json_of(const RephraseEvaluation& e);
// {"task", "items", "greedy": {"accuracy", ...}, "samples", "sampled", "pass_at_k", "tasks":
// {...}}; what was not sampled is not there.
nlohmann::ordered_json json_of(const TaskEvalFlags& f, const TaskEvaluation& e);

// Evaluates and prints it, or the curve, as a table or as one JSON object; the evaluation's answers
// go into the file `answers` where it is named. The exit code.
int report_on_tasks(LoadedModel& m, TaskEvalFlags f, bool json, const std::string& answers);

}  // namespace wels
