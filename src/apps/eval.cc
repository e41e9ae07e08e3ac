// wels eval: bits per byte and perplexity of a text under a model, or how many of a task's
// questions it answers right.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "apps/task_eval.h"
#include "base/error.h"
#include "data/corpus.h"
#include "nn/ops.h"

namespace wels {
namespace {

struct EvalFlags {
  DeviceFlags device;
  std::string model, dtype = "auto";
  std::vector<std::string> files;
  int64_t sequence = 0;
  TaskEvalFlags tasks;
  bool curve = false;
  std::vector<int64_t> budgets;  // of the curve
  bool json = false;
};

struct Sum {
  double nats = 0;
  int64_t tokens = 0, bytes = 0;
};

// A document in windows of `sequence` tokens; each window starts afresh, its first token follows
// the end-of-text token.
void add_document(LoadedModel& m, Pool& pool, const std::string& text, int64_t sequence, Sum& sum) {
  std::vector<int32_t> ids = m.tokenizer->encode(text, AddedTokens::kAsText);
  if (m.tokenizer->eos()) ids.insert(ids.begin(), *m.tokenizer->eos());
  sum.bytes += static_cast<int64_t>(text.size());
  for (size_t at = 0; at + 1 < ids.size(); at += static_cast<size_t>(sequence)) {
    size_t n = std::min(static_cast<size_t>(sequence), ids.size() - 1 - at);
    Batch batch;
    batch.append(std::span(ids).subspan(at, n));
    Ctx ctx{.dev = *m.dev, .pool = pool, .tape = nullptr, .dtype = m.dtype};
    Var h = m.model->hidden(ctx, batch, {});
    Var logp = token_logp(ctx, h, m.model->head(),
                          ctx.make_ids(ids.data() + at + 1, static_cast<int64_t>(n)));
    std::vector<float> values(n);
    m.dev->download(logp.t, values.data());
    for (float x : values) sum.nats -= static_cast<double>(x);
    sum.tokens += static_cast<int64_t>(n);
  }
}

void print_stats(const char* how, const AnswerStats& s) {
  fmt::print(
      "{:8} accuracy {:.3f}  length {:.1f} (95 %: {:.0f})  with a thought {:.3f}  ended {:.3f}\n",
      how, s.accuracy, s.length_mean, s.length_p95, s.long_share, s.ended);
}

int print_curve(const EvalFlags& f, LoadedModel& m) {
  std::vector<CurvePoint> curve = thought_curve(m, f.tasks, f.budgets);
  int64_t k = f.tasks.settings.samples;
  if (f.json) {
    nlohmann::ordered_json j = nlohmann::ordered_json::array();
    for (const CurvePoint& p : curve) {
      nlohmann::ordered_json point = {{"budget", p.budget}};
      point.update(json_of(f.tasks, p.evaluation));
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

int eval_tasks(const EvalFlags& f, LoadedModel& m) {
  if (f.curve) return print_curve(f, m);
  TaskEvaluation e = evaluate_on_tasks(m, f.tasks);
  if (f.json) {
    fmt::print("{}\n", json_of(f.tasks, e).dump());
    return 0;
  }
  int64_t samples = f.tasks.settings.samples;
  fmt::print("{}: {} held-out questions\n", f.tasks.task, f.tasks.settings.items);
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

int eval(const EvalFlags& f) {
  f.device.apply();
  if (f.files.empty() == f.tasks.task.empty())
    throw Error("wels eval", "needs texts or --task, one of the two",
                "give files, or --task parity:20");
  if (f.curve && f.tasks.task.empty())
    throw Error("--curve", "is of answers to tasks", "name them: --task parity:20");
  LoadedModel m = open_model(f.model, f.device.device, f.dtype);
  if (!m.tokenizer)
    throw Error(m.folder, "has no tokenizer.json",
                "copy the model's tokenizer.json into the folder");
  if (!f.tasks.task.empty()) return eval_tasks(f, m);
  int64_t sequence = f.sequence > 0
                         ? f.sequence
                         : std::min<int64_t>(1024, m.model->config().max_position_embeddings);
  Pool pool;
  Sum sum;
  read_corpus(list_corpus(f.files), [&](std::string_view text) {
    add_document(m, pool, std::string(text), sequence, sum);
  });
  if (!std::isfinite(sum.nats))
    throw Error(m.folder, "gives log-probabilities that are not finite", "the weights are damaged");
  double loss = sum.nats / static_cast<double>(std::max<int64_t>(sum.tokens, 1));
  double bpb = sum.nats / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(sum.bytes, 1));
  if (f.json) {
    nlohmann::ordered_json j = {{"bits_per_byte", bpb},   {"perplexity", std::exp(loss)},
                                {"nats_per_token", loss}, {"tokens", sum.tokens},
                                {"bytes", sum.bytes},     {"seq", sequence}};
    fmt::print("{}\n", j.dump());
  } else {
    fmt::print(
        "{:.4f} bits per byte, perplexity {:.3f} ({:.4f} nats per token) over {} tokens, {} bytes, "
        "windows of {}\n",
        bpb, std::exp(loss), loss, sum.tokens, sum.bytes, sequence);
  }
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("eval", "bits per byte of texts, or right answers to tasks");
  auto f = std::make_shared<EvalFlags>();
  sub->add_option("model", f->model, "model folder, run folder or GGUF file")->required();
  sub->add_option("files", f->files, "texts (.txt .md .jsonl, .gz .zst) or folders");
  f->tasks.add(sub);
  sub->add_flag("--curve", f->curve, "tasks: accuracy against tokens, for budgets of thought");
  sub->add_option("--budgets", f->budgets,
                  "of the curve, such as 0,16,64 (default: 0, 4, 8, 16, ...)")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--seq", f->sequence, "window (0: 1024, or the model's longest)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--dtype", f->dtype, "auto, bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  sub->add_flag("--json", f->json, "one JSON object");
  f->device.add(sub);
  sub->callback([f, &run] { run = [f] { return eval(*f); }; });
}

}  // namespace wels
