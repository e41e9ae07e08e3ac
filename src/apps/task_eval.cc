#include "apps/task_eval.h"

#include <map>

#include "apps/think_flags.h"
#include "base/error.h"
#include "text/chat.h"

namespace wels {
namespace {

nlohmann::ordered_json json_of(const AnswerStats& s) {
  return {{"accuracy", s.accuracy},
          {"length_mean", s.length_mean},
          {"length_p95", s.length_p95},
          {"long_share", s.long_share},
          {"ended", s.ended},
          {"format", s.formed},
          {"one_language", s.one_language}};
}

}  // namespace

ChatTemplate task_template(const std::string& name, const std::string& folder) {
  return name == "auto" ? find_chat_template(folder).value_or(ChatTemplate::kDeepSeekV31)
                        : chat_template_by_name(name);
}

void add_task_template_flag(CLI::App* sub, std::string& name) {
  std::string names = "of the prompts: auto (the model's own, else deepseek-v3.1)";
  for (const ChatTemplateName& t : chat_template_names()) names += std::string(", ") + t.name;
  sub->add_option("--template", name, names)->capture_default_str();
}

void TaskEvalFlags::add(CLI::App* sub) {
  sub->add_option("--task", task, "questions of tasks, such as parity:20 or addition:8-12*2,gcd");
  std::map<std::string, TaskSplit> splits = {
      {"held-out", TaskSplit::kHeldOut}, {"train", TaskSplit::kTrain}, {"all", TaskSplit::kAll}};
  sub->add_option("--split", settings.split,
                  "held-out or train questions, or (files) all, each once, whatever --items says")
      ->transform(CLI::CheckedTransformer(splits))
      ->default_str("held-out");
  sub->add_option("--items", settings.items, "questions")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--samples,--vote,--best-of", settings.samples,
                  "answers drawn to each besides the greedy one: their mean, pass@k, the "
                  "majority's, the likeliest and the one that the task's checker finds best")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--temperature", settings.temperature, "of those")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  sub->add_option("--max-tokens", max_tokens, "of an answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_flag("--no-think", no_think, "prompts do not begin a thought");
  add_task_template_flag(sub, chat_template);
  add_think_flags(sub, think);
  sub->add_option("--seed", settings.seed, "of questions and answers")->capture_default_str();
}

namespace {

RolloutSettings rollout_settings(const LoadedModel& m, const TaskEvalFlags& f) {
  require_tokenizer(m);
  RolloutSettings rollout;
  rollout.dtype = m.dtype;
  rollout.max_tokens = f.max_tokens;
  rollout.thinking = !f.no_think;
  rollout.chat_template = task_template(f.chat_template, m.folder);
  rollout.think = f.think;
  return rollout;
}

}  // namespace

TaskEvaluation evaluate_on_tasks(LoadedModel& m, const TaskEvalFlags& f) {
  RolloutSettings rollout = rollout_settings(m, f);
  TaskMixture tasks(f.task);
  RolloutSampler sampler(*m.dev, *m.model, *m.tokenizer, rollout);
  return evaluate_tasks(sampler, tasks, f.settings);
}

RephraseEvaluation evaluate_rephrased_on_tasks(LoadedModel& m, const TaskEvalFlags& f) {
  RolloutSettings rollout = rollout_settings(m, f), short_text = rollout;
  short_text.think = no_thought(*m.tokenizer);
  short_text.thinking = false;
  short_text.max_tokens = kRephraseTokens;
  TaskMixture tasks(f.task);
  RolloutSampler sampler(*m.dev, *m.model, *m.tokenizer, rollout);
  RolloutSampler rephraser(*m.dev, *m.model, *m.tokenizer, short_text);
  return evaluate_rephrased(sampler, rephraser, tasks, f.settings, f.rephrase);
}

std::vector<CurvePoint> thought_curve(LoadedModel& m, TaskEvalFlags f,
                                      std::vector<int64_t> budgets) {
  if (f.no_think) throw Error("--curve", "is over budgets of thought", "leave out --no-think");
  if (budgets.empty()) {
    budgets.push_back(0);
    for (int64_t b = 4; b < f.max_tokens; b *= 2) budgets.push_back(b);
  }
  std::vector<CurvePoint> out;
  for (int64_t b : budgets) {
    f.think.most = b;
    out.push_back({b, evaluate_on_tasks(m, f)});
  }
  return out;
}

nlohmann::ordered_json json_of(const RephraseEvaluation& e) {
  return {{"count", e.count},
          {"vote", {{"accuracy", e.vote}, {"tokens", e.vote_tokens}}},
          {"joint", {{"accuracy", e.joint}, {"tokens", e.joint_tokens}}}};
}

nlohmann::ordered_json json_of(const TaskEvalFlags& f, const TaskEvaluation& e) {
  nlohmann::ordered_json j = {{"task", f.task}, {"items", e.items}};
  bool sampled = f.settings.samples > 0;
  j["greedy"] = json_of(e.greedy);
  if (sampled) {
    j["samples"] = f.settings.samples;
    j["sampled"] = json_of(e.sampled);
    j["pass_at_k"] = e.pass_at_k;
    j["majority"] = e.majority;
    j["likeliest"] = e.likeliest;
  }
  if (e.checker_failures > 0) j["checker_failures"] = e.checker_failures;
  for (const auto& p : e.parts) {
    nlohmann::ordered_json& part = j["tasks"][p.name];
    part = {{"items", p.items}, {"greedy", p.greedy}, {"length_mean", p.length_mean}};
    if (!sampled) continue;
    part["sampled"] = p.sampled;
    part["pass_at_k"] = p.pass_at_k;
  }
  return j;
}

}  // namespace wels
