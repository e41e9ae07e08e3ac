#include "rl/evaluation.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/rng.h"
#include "rl/reward.h"
#include "rl/voting.h"
#include "tasks/answer.h"

namespace wels {
namespace {

constexpr uint64_t kEvaluationStream = hash_name("evaluation");
// Items whose completions are drawn at once.
constexpr int64_t kItemsAtOnce = 256;

std::vector<double> scores_of(std::span<const Reward> rewards) {
  std::vector<double> out;
  for (const Reward& r : rewards) out.push_back(r.score);
  return out;
}

struct Drawn {
  std::vector<Rollout> rollouts;
  std::vector<double> scores;
};

Drawn draw(RolloutSampler& sampler, std::span<const TaskMixture::Item> items, int64_t samples,
           double temperature, uint64_t seed) {
  Drawn all;
  for (size_t begin = 0; begin < items.size(); begin += kItemsAtOnce) {
    auto some = items.subspan(begin, std::min<size_t>(kItemsAtOnce, items.size() - begin));
    std::vector<std::vector<int32_t>> prompts;
    for (const auto& item : some) prompts.push_back(sampler.prompt(item.example.question));
    auto luck = [&](int64_t prompt, int64_t sample) {
      uint64_t place = (begin + static_cast<uint64_t>(prompt)) * static_cast<uint64_t>(samples) +
                       static_cast<uint64_t>(sample);
      return Rng(seed, kEvaluationStream, 2 * place).next_u64();
    };
    std::vector<Rollout> rollouts = sampler.sample(
        {.prompts = prompts, .samples = samples, .temperature = temperature, .seed = luck});
    std::vector<double> scores =
        scores_of(score_rollouts(some, rollouts, sampler.settings().max_tokens, {}));
    std::move(rollouts.begin(), rollouts.end(), std::back_inserter(all.rollouts));
    all.scores.insert(all.scores.end(), scores.begin(), scores.end());
  }
  return all;
}

bool any_right(std::span<const double> scores) {
  return std::any_of(scores.begin(), scores.end(), [](double s) { return s >= 1; });
}

std::vector<TaskEvaluation::Part> parts_of(const TaskMixture& tasks,
                                           std::span<const TaskMixture::Item> items,
                                           const Drawn& greedy, const Drawn& sampled,
                                           size_t samples) {
  std::vector<std::string> names = part_names(tasks);
  std::map<std::string, TaskEvaluation::Part> parts;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string& name = names[part_of(tasks, items[i])];
    TaskEvaluation::Part& p = parts[name];
    p.name = name;
    ++p.items;
    p.greedy += greedy.scores[i];
    p.length_mean += static_cast<double>(greedy.rollouts[i].tokens.size());
    auto own = std::span(sampled.scores).subspan(i * samples, samples);
    for (double s : own) p.sampled += s / static_cast<double>(samples);
    p.pass_at_k += any_right(own);
  }
  std::vector<TaskEvaluation::Part> out;
  for (auto& [name, p] : parts) {
    for (double* x : {&p.greedy, &p.sampled, &p.pass_at_k, &p.length_mean})
      *x /= static_cast<double>(p.items);
    out.push_back(p);
  }
  return out;
}

std::vector<TaskEvaluation::Answers> answers_of(std::span<const TaskMixture::Item> items,
                                                const Drawn& greedy, const Drawn& sampled,
                                                size_t samples, const Tokenizer& tokenizer) {
  auto answer = [&](const Drawn& d, size_t i) {
    return TaskEvaluation::Answer{tokenizer.decode(d.rollouts[i].tokens), d.scores[i]};
  };
  std::vector<TaskEvaluation::Answers> out;
  for (size_t i = 0; i < items.size(); ++i) {
    out.push_back({std::string(items[i].task->name()), items[i].example.question,
                   answer(greedy, i), {}});
    for (size_t j = 0; j < samples; ++j)
      out.back().sampled.push_back(answer(sampled, i * samples + j));
  }
  return out;
}

}  // namespace

std::vector<std::string> part_names(const TaskMixture& tasks) {
  std::map<std::string, int> of_task, of_name;
  for (const TaskMixture::Part& p : tasks.parts()) ++of_task[p.task->name()];
  std::vector<std::string> out;
  for (const TaskMixture::Part& p : tasks.parts()) {
    std::string name = p.task->name();
    Task::Levels levels = p.task->levels();
    if (of_task[name] > 1 && levels.highest > levels.lowest) {
      name += ":" + std::to_string(p.from);
      if (p.to > p.from) name += "-" + std::to_string(p.to);
    }
    int number = ++of_name[name];
    out.push_back(number > 1 ? name + "#" + std::to_string(number) : name);
  }
  return out;
}

size_t part_of(const TaskMixture& tasks, const TaskMixture::Item& item) {
  const auto& parts = tasks.parts();
  auto at = std::find_if(parts.begin(), parts.end(),
                         [&](const TaskMixture::Part& p) { return p.task.get() == item.task; });
  return static_cast<size_t>(at - parts.begin());
}

int64_t checker_failures(const TaskMixture& tasks) {
  int64_t n = 0;
  for (const TaskMixture::Part& p : tasks.parts()) n += p.task->checker_failures();
  return n;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  size_t last = values.size() - 1;
  size_t at = static_cast<size_t>(std::ceil(q * static_cast<double>(values.size())));
  auto place = values.begin() + static_cast<long>(std::min(at > 0 ? at - 1 : 0, last));
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

AnswerStats answer_stats(std::span<const Rollout> rollouts, std::span<const double> scores) {
  AnswerStats s;
  s.completions = static_cast<int64_t>(rollouts.size());
  if (rollouts.empty()) return s;
  std::vector<double> lengths;
  double thoughts = 0, consistency = 0;
  for (size_t i = 0; i < rollouts.size(); ++i) {
    const Rollout& r = rollouts[i];
    lengths.push_back(static_cast<double>(r.tokens.size()));
    s.accuracy += scores[i];
    s.length_mean += lengths.back();
    s.long_share += is_long(r);
    s.ended += r.ended;
    s.formed += r.ended && r.parts.well_formed;
    if (!is_long(r)) continue;
    ++thoughts;
    consistency += std::max(language_consistency(r.parts.thought, "en").value_or(1),
                            language_consistency(r.parts.thought, "zh").value_or(1));
  }
  if (thoughts > 0) s.one_language = consistency / thoughts;
  for (double* x : {&s.accuracy, &s.length_mean, &s.long_share, &s.ended, &s.formed})
    *x /= static_cast<double>(rollouts.size());
  s.length_p95 = quantile(std::move(lengths), 0.95);
  return s;
}

std::vector<TaskMixture::Item> evaluation_items(const TaskMixture& tasks,
                                                const EvaluationSettings& s) {
  if (s.split == TaskSplit::kAll) return tasks.all();
  std::vector<TaskMixture::Item> items;
  for (int64_t i = 0; i < s.items; ++i) items.push_back(tasks.item(s.seed, i, s.split));
  return items;
}

TaskEvaluation evaluate_tasks(RolloutSampler& sampler, const TaskMixture& tasks,
                              const EvaluationSettings& s) {
  std::vector<TaskMixture::Item> items = evaluation_items(tasks, s);
  int64_t failures = checker_failures(tasks);
  Drawn greedy = draw(sampler, items, 1, 0, s.seed), sampled;
  if (s.samples > 0) sampled = draw(sampler, items, s.samples, s.temperature, s.seed);
  TaskEvaluation e;
  e.items = static_cast<int64_t>(items.size());
  e.checker_failures = checker_failures(tasks) - failures;
  e.greedy = answer_stats(greedy.rollouts, greedy.scores);
  e.sampled = answer_stats(sampled.rollouts, sampled.scores);
  size_t k = static_cast<size_t>(s.samples);
  e.parts = parts_of(tasks, items, greedy, sampled, k);
  for (const auto& p : e.parts)
    e.pass_at_k += p.pass_at_k * static_cast<double>(p.items) / static_cast<double>(e.items);
  for (size_t i = 0; k > 0 && i < items.size(); ++i) {
    auto own = std::span<const Rollout>(sampled.rollouts).subspan(i * k, k);
    auto n = static_cast<double>(items.size());
    e.majority += sampled.scores[i * k + majority_answer(own)] / n;
    e.likeliest += sampled.scores[i * k + likeliest_answer(own)] / n;
  }
  if (s.keep_answers) e.answers = answers_of(items, greedy, sampled, k, sampler.tokenizer());
  if (!items.empty()) {
    e.example =
        items[0].example.question + "\n" + sampler.tokenizer().decode(greedy.rollouts[0].tokens);
  }
  return e;
}

}  // namespace wels
