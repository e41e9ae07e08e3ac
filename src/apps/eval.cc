// wels eval: bits per byte and perplexity of a text under a model, how far it is from a reference
// (engine/divergence.h), or how many of a task's questions it answers right (apps/task_eval.h).
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "apps/task_eval.h"
#include "apps/text_eval.h"
#include "apps/think_flags.h"
#include "base/error.h"
#include "base/signal.h"
#include "engine/divergence.h"

namespace wels {
namespace {

using Json = nlohmann::ordered_json;

struct EvalFlags {
  DeviceFlags device;
  std::string model, reference, dtype = "auto", kv_cache = "none", answers;
  std::vector<std::string> files;
  int64_t sequence = 0;
  TaskEvalFlags tasks;
  bool json = false, kl = false, perplexity = false;
};

LoadedModel open(const std::string& path, const EvalFlags& f) {
  LoadedModel m = open_model(path, f.device.device, f.dtype);
  require_tokenizer(m);
  return m;
}

int eval_one(const EvalFlags& f) {
  LoadedModel m = open(f.model, f);
  StopSignal stop;
  TextEvaluation e = evaluate_text(m, f.files, f.sequence, [&] { return stop.requested(); });
  if (e.read.stopped) return 128 + stop.number();
  int64_t sequence = window_length(f.sequence, m.model->config().max_position_embeddings);
  double perplexity = std::exp(e.nats_per_token);
  if (f.json) {
    Json j = {{"bits_per_byte", e.bits_per_byte},
              {"perplexity", perplexity},
              {"nats_per_token", e.nats_per_token},
              {"tokens", e.tokens},
              {"bytes", e.read.bytes},
              {"seq", sequence}};
    fmt::print("{}\n", j.dump());
  } else {
    fmt::print(
        "{:.4f} bits per byte, perplexity {:.3f} ({:.4f} nats per token) over {} tokens, {} bytes, "
        "windows of {}\n",
        e.bits_per_byte, perplexity, e.nats_per_token, e.tokens, e.read.bytes, sequence);
  }
  return 0;
}

// --- beside a reference ---

constexpr auto kReplace = Json::error_handler_t::replace;
constexpr const char* kSameTokens = "give two versions of one model";

// Both must mean the same by a token. Files may name more tokens than the model has rows for, or
// fill up the rest with names of their own; that text comes out alike is looked at as it is read.
void require_same_tokens(const LoadedModel& m, const LoadedModel& reference) {
  int64_t v = m.model->config().vocab_size, w = reference.model->config().vocab_size;
  if (v != w)
    throw Error(m.folder, fmt::format("predicts {} tokens, {} {}", v, reference.folder, w),
                kSameTokens);
  int32_t n = std::min(m.tokenizer->vocab_size(), reference.tokenizer->vocab_size());
  for (int32_t id = 0; id < n; ++id) {
    std::string_view a = m.tokenizer->token_bytes(id), b = reference.tokenizer->token_bytes(id);
    if (a != b)
      throw Error(
          m.folder,
          fmt::format("has another tokenizer than {}: token {} is {} and {}", reference.folder, id,
                      Json(a).dump(-1, ' ', true, kReplace), Json(b).dump(-1, ' ', true, kReplace)),
          kSameTokens);
  }
  if (m.tokenizer->eos() != reference.tokenizer->eos())
    throw Error(m.folder, fmt::format("ends texts with another token than {}", reference.folder),
                kSameTokens);
}

Json to_json(const DivergenceReport& r, bool kl) {
  Json j = {{"perplexity", r.perplexity},
            {"reference_perplexity", r.reference_perplexity},
            {"perplexity_ratio", r.ratio.value},
            {"perplexity_ratio_error", r.ratio.standard_error},
            {"logp_difference", r.logp_difference.value},
            {"logp_difference_error", r.logp_difference.standard_error}};
  if (!kl) return j;
  j.update(Json{{"kl", r.kl.value},
                {"kl_error", r.kl.standard_error},
                {"kl_median", r.kl_median},
                {"kl_99", r.kl_99},
                {"kl_max", r.kl_max},
                {"same_top", r.same_top.value},
                {"same_top_error", r.same_top.standard_error},
                {"rms_probability_difference", r.rms_probability}});
  return j;
}

void print(const DivergenceReport& r, bool kl) {
  fmt::print("perplexity                {:10.4f}\n", r.perplexity);
  fmt::print("  of the reference        {:10.4f}\n", r.reference_perplexity);
  fmt::print("  ratio                   {:10.6f} ± {:.6f}\n", r.ratio.value,
             r.ratio.standard_error);
  fmt::print("log-probability, model - reference, nats per token\n");
  fmt::print("  mean                    {:10.6f} ± {:.6f}\n", r.logp_difference.value,
             r.logp_difference.standard_error);
  if (!kl) return;
  fmt::print("KL(reference || model), nats per token\n");
  fmt::print("  mean                    {:10.6f} ± {:.6f}\n", r.kl.value, r.kl.standard_error);
  fmt::print("  median, 99 %, largest   {:10.6f} {:.6f} {:.6f}\n", r.kl_median, r.kl_99, r.kl_max);
  fmt::print("same likeliest token      {:10.3f} ± {:.3f} %\n", 100 * r.same_top.value,
             100 * r.same_top.standard_error);
  fmt::print("probability of the text's token, root mean square difference\n");
  fmt::print("                          {:10.3f} %\n", 100 * r.rms_probability);
}

int eval_pair(const EvalFlags& f) {
  bool kl = f.kl || !f.perplexity;
  LoadedModel m = open(f.model, f), reference = open(f.reference, f);
  require_same_tokens(m, reference);
  int64_t sequence =
      window_length(f.sequence, std::min(m.model->config().max_position_embeddings,
                                         reference.model->config().max_position_embeddings));
  StopSignal stop;
  Divergence::Side side{*m.dev, *m.model, m.dtype, m.folder};
  if (f.kv_cache != "none") side.cache = cache_type(f.kv_cache, m.dtype);
  Divergence divergence({*reference.dev, *reference.model, reference.dtype, reference.folder}, side,
                        kl);
  auto encode = [&](std::string_view text) {
    std::vector<int32_t> ids = m.tokenizer->encode(text, AddedTokens::kAsText);
    if (ids != reference.tokenizer->encode(text, AddedTokens::kAsText))
      throw Error(m.folder,
                  fmt::format("cuts this text into other tokens than {}", reference.folder),
                  kSameTokens);
    return ids;
  };
  ReadText read = each_window(
      f.files, reference.tokenizer->document_begin(), sequence, [&] { return stop.requested(); },
      encode, [&](std::span<const int32_t> ids) { divergence.add(ids); });
  if (read.stopped) return 128 + stop.number();
  DivergenceReport r = divergence.report();
  if (f.json) {
    Json j = to_json(r, kl);
    j.update(Json{{"tokens", r.tokens}, {"bytes", read.bytes}, {"seq", sequence}});
    fmt::print("{}\n", j.dump());
  } else {
    print(r, kl);
    fmt::print("over {} tokens, {} bytes, windows of {}\n", r.tokens, read.bytes, sequence);
  }
  return 0;
}

int eval(const EvalFlags& f) {
  f.device.apply();
  if (f.files.empty() == f.tasks.task.empty())
    throw Error("wels eval", "needs texts or --task, one of the two",
                "give files, or --task parity:20");
  if ((f.tasks.curve || f.tasks.rephrase > 0) && f.tasks.task.empty())
    throw Error(f.tasks.curve ? "--curve" : "--rephrase", "is of answers to tasks",
                "name them: --task parity:20");
  if (!f.answers.empty() && f.tasks.task.empty())
    throw Error("--answers", "are those to tasks", "name them: --task parity:20");
  if (!f.tasks.budgets.empty() && !f.tasks.curve)
    throw Error("--budgets", "are those of a curve", "ask for it: --curve");
  if (!f.tasks.task.empty() && !f.reference.empty())
    throw Error("--reference", "is compared over texts, not over answers to tasks",
                "leave out one of --task and --reference");
  if (!f.tasks.task.empty()) {
    StopSignal stop;  // which ends checkers too
    LoadedModel m = open(f.model, f);
    return report_on_tasks(m, f.tasks, f.json, f.answers);
  }
  if (!f.reference.empty()) return eval_pair(f);
  if (f.kl || f.kv_cache != "none")
    throw Error(f.kl ? "--kl" : "--kv-cache", "compares the model with another",
                "name that one with --reference, the unquantised model for example");
  return eval_one(f);
}

}  // namespace

void add_eval(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand(
      "eval", "bits per byte of texts, distance from another model, or right answers to tasks");
  auto f = std::make_shared<EvalFlags>();
  sub->add_option("model", f->model, "model folder, run folder or GGUF file")->required();
  sub->add_option("files", f->files, "texts (.txt .md .jsonl, .gz .zst) or folders");
  f->tasks.add(sub);
  add_rephrase_flag(sub, f->tasks.rephrase,
                    "answered each (the majority counts), and all in one prompt");
  sub->add_flag("--curve", f->tasks.curve,
                "tasks: accuracy against tokens, for budgets of thought");
  sub->add_option("--budgets", f->tasks.budgets,
                  "of the curve, such as 0,16,64 (default: 0, 4, 8, 16, ...)")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--answers", f->answers,
                  "--task: a file to write, one JSON line per question with its answers and their "
                  "scores");
  sub->add_option("--reference", f->reference,
                  "the model to compare with, such as the one that was quantised");
  sub->add_flag("--kl", f->kl,
                "with --reference: KL(reference || model) per token and the share of equal first "
                "choices (the default)");
  sub->add_flag("--perplexity", f->perplexity,
                "with --reference: the perplexities only, in less time");
  sub->add_option("--kv-cache", f->kv_cache,
                  "with --reference: the model, and not the other, attends over a KV cache of this "
                  "type: f32, bf16 or q8")
      ->check(CLI::IsMember({"none", "f32", "bf16", "q8"}))
      ->capture_default_str();
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
