// report_on_tasks: what `wels eval --task` prints.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <tuple>

#include "apps/task_eval.h"
#include "base/error.h"
#include "base/file.h"

namespace wels {
namespace {

void print_stats(const char* how, const AnswerStats& s) {
  fmt::print(
      "{:8} accuracy {:.3f}  length {:.1f} (95 %: {:.0f})  with a thought {:.3f}  ended {:.3f}\n",
      how, s.accuracy, s.length_mean, s.length_p95, s.long_share, s.ended);
}

int print_curve(LoadedModel& m, const TaskEvalFlags& f, bool json) {
  std::vector<CurvePoint> curve = thought_curve(m, f, f.budgets);
  int64_t k = f.settings.samples;
  std::optional<RephraseEvaluation> rephrased;
  if (f.rephrase > 0) rephrased = evaluate_rephrased_on_tasks(m, f);
  if (json) {
    nlohmann::ordered_json j = nlohmann::ordered_json::array();
    for (const CurvePoint& p : curve) {
      nlohmann::ordered_json point = {{"budget", p.budget}};
      point.update(json_of(f, p.evaluation));
      j.push_back(std::move(point));
    }
    nlohmann::ordered_json all = {{"curve", j}};
    if (rephrased) all["rephrase"] = json_of(*rephrased);
    fmt::print("{}\n", all.dump());
    return 0;
  }
  fmt::print("{:>8}  {:>8}  {:>8}", "budget", "tokens", "greedy");
  if (k > 0)
    fmt::print("  {:>8}  {:>8}  {:>8}  {:>9}  {:>8}", "tokens", "sampled", "majority", "likeliest",
               fmt::format("pass@{}", k));
  fmt::print("\n");
  for (const auto& [budget, e] : curve) {
    fmt::print("{:8}  {:8.1f}  {:8.3f}", budget, e.greedy.length_mean, e.greedy.accuracy);
    if (k > 0)
      fmt::print("  {:8.1f}  {:8.3f}  {:8.3f}  {:9.3f}  {:8.3f}", e.sampled.length_mean,
                 e.sampled.accuracy, e.majority, e.likeliest, e.pass_at_k);
    fmt::print("\n");
  }
  if (!rephrased) return 0;
  // Of greedy answers, without a budget.
  for (auto [how, accuracy, tokens] :
       {std::tuple{"vote", rephrased->vote, rephrased->vote_tokens},
        std::tuple{"joint", rephrased->joint, rephrased->joint_tokens}})
    fmt::print("{:>8}  {:8.1f}  {:8.3f}\n", fmt::format("{} {}", how, f.rephrase), tokens,
               accuracy);
  return 0;
}

// The drawn answer that the task's checker gives most, of equally good ones the first; null: none.
const TaskEvaluation::Answer* best_answer(const TaskEvaluation::Answers& a) {
  auto worse = [](const auto& x, const auto& y) { return x.score < y.score; };
  auto best = std::max_element(a.sampled.begin(), a.sampled.end(), worse);
  return best == a.sampled.end() ? nullptr : &*best;
}

// Best-of-n by the checker: the mean score of these.
double best_of(const TaskEvaluation& e) {
  double sum = 0;
  for (const TaskEvaluation::Answers& a : e.answers) {
    if (const auto* best = best_answer(a)) sum += best->score;
  }
  return e.answers.empty() ? 0 : sum / static_cast<double>(e.answers.size());
}

void write_answers(const std::string& path, const TaskEvaluation& e) {
  using Json = nlohmann::ordered_json;
  std::string lines;
  for (const TaskEvaluation::Answers& a : e.answers) {
    Json sampled = Json::array();
    int64_t right = 0;
    for (const auto& s : a.sampled) {
      sampled.push_back({{"text", s.text}, {"score", s.score}});
      right += s.score >= 1;
    }
    Json line = {{"task", a.task},
                 {"question", a.question},
                 {"greedy_score", a.greedy.score},
                 {"sampled_right", right},
                 {"greedy", a.greedy.text},
                 {"sampled", sampled}};
    if (const auto* best = best_answer(a)) line["best"] = best->text;
    lines += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  write_file_atomic(path, lines);
}

}  // namespace

int report_on_tasks(LoadedModel& m, TaskEvalFlags f, bool json, const std::string& answers) {
  if (f.curve && !answers.empty())
    throw Error("--answers", "is of one evaluation", "leave out --curve");
  if (f.curve) return print_curve(m, f, json);
  f.settings.keep_answers = !answers.empty() || f.settings.samples > 0;
  // Where they cannot be written, that is said before the questions are asked.
  if (auto folder = std::filesystem::path(answers).parent_path(); !folder.empty())
    make_folder(folder.string());
  TaskEvaluation e = evaluate_on_tasks(m, f);
  if (!answers.empty()) write_answers(answers, e);
  std::optional<RephraseEvaluation> rephrased;
  if (f.rephrase > 0) rephrased = evaluate_rephrased_on_tasks(m, f);
  if (json) {
    nlohmann::ordered_json j = json_of(f, e);
    if (f.settings.samples > 0) j["best_of"] = best_of(e);
    if (rephrased) j["rephrase"] = json_of(*rephrased);
    fmt::print("{}\n", j.dump());
    return 0;
  }
  int64_t samples = f.settings.samples;
  const char* of = f.settings.split == TaskSplit::kHeldOut ? "held-out "
                   : f.settings.split == TaskSplit::kTrain ? "training "
                                                           : "";
  fmt::print("{}: {} {}questions\n", f.task, e.items, of);
  print_stats("greedy", e.greedy);
  if (samples > 0) {
    print_stats("sampled", e.sampled);
    fmt::print("pass@{}   {:.3f}  majority {:.3f}  likeliest {:.3f}  best by the checker {:.3f}\n",
               samples, e.pass_at_k, e.majority, e.likeliest, best_of(e));
  }
  if (rephrased)
    fmt::print("{} rephrasings  vote {:.3f} ({:.1f} tokens)  joint {:.3f} ({:.1f} tokens)\n",
               f.rephrase, rephrased->vote, rephrased->vote_tokens, rephrased->joint,
               rephrased->joint_tokens);
  if (e.checker_failures > 0)
    fmt::print("{} answers were not checked, since their checker failed, and count as wrong\n",
               e.checker_failures);
  for (const auto& p : e.parts) {
    if (e.parts.size() > 1)
      fmt::print("  {:20} {:5} questions  greedy {:.3f}  sampled {:.3f}  length {:.1f}\n", p.name,
                 p.items, p.greedy, p.sampled, p.length_mean);
  }
  return 0;
}

}  // namespace wels
