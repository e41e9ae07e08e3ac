// report_on_tasks: what `wels eval --task` prints.
#include <fmt/format.h>

#include "apps/task_eval.h"

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
  if (json) {
    nlohmann::ordered_json j = nlohmann::ordered_json::array();
    for (const CurvePoint& p : curve) {
      nlohmann::ordered_json point = {{"budget", p.budget}};
      point.update(json_of(f, p.evaluation));
      j.push_back(std::move(point));
    }
    fmt::print("{}\n", nlohmann::ordered_json{{"curve", j}}.dump());
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
  return 0;
}

}  // namespace

int report_on_tasks(LoadedModel& m, const TaskEvalFlags& f, bool json) {
  if (f.curve) return print_curve(m, f, json);
  TaskEvaluation e = evaluate_on_tasks(m, f);
  if (json) {
    fmt::print("{}\n", json_of(f, e).dump());
    return 0;
  }
  int64_t samples = f.settings.samples;
  fmt::print("{}: {} held-out questions\n", f.task, f.settings.items);
  print_stats("greedy", e.greedy);
  if (samples > 0) {
    print_stats("sampled", e.sampled);
    fmt::print("pass@{}   {:.3f}  majority {:.3f}  likeliest {:.3f}\n", samples, e.pass_at_k,
               e.majority, e.likeliest);
  }
  for (const auto& p : e.parts) {
    if (e.parts.size() > 1)
      fmt::print("  {:20} {:5} questions  greedy {:.3f}  sampled {:.3f}  length {:.1f}\n", p.name,
                 p.items, p.greedy, p.sampled, p.length_mean);
  }
  return 0;
}

}  // namespace wels
