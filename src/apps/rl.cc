// wels rl: reinforcement learning on tasks that a program can check, from a model folder to a run
// folder. The same command again resumes the run.
#include <fmt/format.h>

#include <map>
#include <utility>
#include <vector>

#include "apps/loaded_model.h"
#include "apps/rl_command.h"
#include "apps/run_sections.h"
#include "apps/sampling_flags.h"
#include "apps/task_eval.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/signal.h"
#include "base/threads.h"
#include "model/checkpoint.h"
#include "text/chat.h"
#include "train/memory_plan.h"
#include "train/report.h"

namespace wels {
namespace {

template <class T>
void take(const std::optional<T>& from, T& to) {
  if (from) to = *from;
}

// Flags that were given and change nothing with what else was.
void warn_of_idle_flags(const RlFlags& f) {
  const PolicyLoss& loss = f.rl.algorithm.loss;
  const RlFlags::Overrides& o = f.set;
  bool clip = o.clip_low || o.clip_high, plain = loss.surrogate == Surrogate::kPlain;
  bool once = f.rl.epochs * f.rl.algorithm.mini_batches == 1;
  struct Idle {
    bool given;
    const char *flag, *why;
  };
  for (const Idle& idle : {
           Idle{f.unbiased_kl && loss.beta == 0, "--unbiased-kl", "there is no KL term (--beta 0)"},
           Idle{f.rl.reference_refresh != RlSettings().reference_refresh && loss.beta == 0,
                "--refresh", "there is no reference without a KL term (--beta 0)"},
           Idle{clip && plain, "--clip-low, --clip-high", "reinforce has no ratio to clip"},
           Idle{clip && !plain && once, "--clip-low, --clip-high",
                "with one update a rollout the ratio is 1 (--mini-batches, --epochs)"},
           Idle{o.clip_low && loss.surrogate == Surrogate::kCispo, "--clip-low",
                "cispo caps ratios from above only"},
           Idle{loss.stale_delta > 0 && once, "--stale-delta",
                "with one update a rollout no answer is stale (--mini-batches, --epochs)"},
           Idle{loss.correction_cap != PolicyLoss().correction_cap &&
                    loss.correction == Correction::kNone,
                "--correction-cap", "there is no --correction"},
           Idle{f.rl.reward.target_language != RewardSettings().target_language &&
                    f.rl.reward.language == 0,
                "--language", "there is no --reward-language"},
       }) {
    if (idle.given) log_warn("{} changes nothing: {}", idle.flag, idle.why);
  }
}

// The algorithm by its name, and what flags say otherwise.
void resolve_algorithm(RlFlags& f) {
  RlSettings& s = f.rl;
  RlAlgorithm& a = s.algorithm;
  RlAlgorithm named = rl_algorithm(f.algorithm);
  named.loss.correction = a.loss.correction;  // what belongs to no algorithm
  named.loss.correction_cap = a.loss.correction_cap;
  a = std::move(named);
  const RlFlags::Overrides& o = f.set;
  take(o.beta, a.loss.beta);
  take(o.clip_low, a.loss.clip_low);
  take(o.clip_high, a.loss.clip_high);
  take(o.stale_delta, a.loss.stale_delta);
  take(o.overlong_zone, a.overlong_zone);
  take(o.mini_batches, a.mini_batches);
  take(o.mean, a.loss.mean);
  take(o.scale, a.scale);
  take(o.dynamic_sampling, a.dynamic_sampling);
  take(o.overlong_filter, a.overlong_filter);
  a.loss.unbiased_kl = f.unbiased_kl;
  check_groups(s);
}

void fill_settings(RlFlags& f) {
  resolve_algorithm(f);
  RlSettings& s = f.rl;
  const RlAlgorithm& a = s.algorithm;
  s.reward.overlong_zone =
      static_cast<int64_t>(a.overlong_zone * static_cast<double>(s.rollout.max_tokens));
  s.rollout.thinking = !f.no_think;
  warn_of_idle_flags(f);
  f.stage.apply(f.settings, {.steps = 60,
                             .lr = f.model.lora.rank > 0 ? 1e-3 : 2e-4,
                             .weight_decay = 0,
                             .stable = 1,  // a constant rate, as R1's
                             .new_model = false});
  s.rollout.dtype = f.settings.trainer.dtype;
  f.settings.trainer.temperature = s.temperature;
  s.seed = f.settings.seed;
  s.evaluation.seed = f.settings.seed;
}

void require_room(const Device& dev, const RlFlags& f, SftModel& m) {
  int64_t rows = f.rl.micro_batch_tokens;
  require_memory(dev, m.config,
                 {.trainer = f.settings.trainer,
                  .sequence_length = std::min(rows, m.config.max_position_embeddings),
                  .batch_tokens = rows,
                  .micro_batch_tokens = rows,
                  .mtp_lambda = 0,
                  .average = f.settings.ema > 0,
                  .samples = true,
                  .lora = m.lora,
                  .stored = m.model ? stored_types(*m.model) : nullptr,
                  .other_lora = f.rl.algorithm.loss.beta > 0},
                 memory_available_bytes() + rss_bytes());
}

std::vector<InfoSection> sections(const RlFlags& f, const SftModel& m) {
  const RlSettings& s = f.rl;
  auto num = [](auto x) { return fmt::format("{}", x); };
  return {{"Recipe",
           {{"stage", "reinforcement learning"},
            {"from", m.about},
            {"trained", m.lora ? fmt::format("adapters of rank {}", m.lora->rank) : "all weights"},
            {"algorithm", f.algorithm},
            {"tasks", s.tasks},
            {"questions x answers", fmt::format("{} x {}", s.groups, s.samples)},
            {"longest answer", num(s.rollout.max_tokens)},
            {"learning rate", num(f.settings.schedule.peak)},
            {"beta", num(s.algorithm.loss.beta)},
            {"clip", fmt::format("{} / {}", s.algorithm.loss.clip_low, s.algorithm.loss.clip_high)},
            {"updates per step", num(s.epochs * s.algorithm.mini_batches)},
            {"type", f.stage.dtype},
            {"seed", num(s.seed)}}},
          model_section(m.config),
          machine_section(machine(), thread_count(), 0)};
}

void print_result(const StageResult& r, const RlStage& stage, const std::string& out) {
  const TaskEvaluation& e = stage.last_evaluation();
  fmt::print("{} {} steps", r.stopped ? "stopped after" : "done:", r.steps);
  if (r.evaluated)
    fmt::print("; greedy accuracy {:.3f} (best {:.3f}), length {:.1f}, thoughts {:.2f}",
               e.greedy.accuracy, 1 - r.best, e.greedy.length_mean, e.greedy.long_share);
  fmt::print("\n");
  if (r.evaluated && e.parts.size() > 1) {
    for (const auto& p : e.parts)
      fmt::print("  {}: greedy accuracy {:.3f}, length {:.1f}\n", p.name, p.greedy, p.length_mean);
  }
  if (int64_t n = stage.checker_failures(); n > 0)
    fmt::print("{} answers were not checked, since their checker failed, and count as wrong\n", n);
  fmt::print("checkpoint {}\nreport {}/report.html\n", r.checkpoint, out);
  if (r.stopped) fmt::print("the same command resumes it\n");
}

}  // namespace

void check_rl_flags(RlFlags f) {
  resolve_algorithm(f);
  if (f.model.chat_template != "auto") chat_template_by_name(f.model.chat_template);
  check_adapters(f.model.lora, f.stage, f.settings);
}

RlOutcome rl_job(RlFlags f) {
  f.device.apply();
  fill_settings(f);
  auto dev = make_device(f.device.device);
  std::string chat_template = std::exchange(f.model.chat_template, "none");  // of examples
  SftModel m = open_checkpoint(f.model);
  f.rl.rollout.chat_template = task_template(chat_template, m.folder);
  require_adaptable(f.settings, m);
  if (m.lora) load_sft_model(m, f.settings.seed);  // mapped: nothing is copied
  require_room(*dev, f, m);
  std::unique_ptr<Model> start;
  if (m.lora) {
    f.rl.model = model_settings(m);
  } else {
    load_sft_model(m, f.settings.seed);
    freeze_mtp(*m.model);
    start = load_model(m.folder, WeightStorage::kMapped);
  }
  if (chat_template != "auto") f.rl.model["template"] = chat_template;
  log_info("{}; {}", describe(m), dev->name());
  RlStage stage(*dev, *m.model, start ? *start : *m.model, *m.tokenizer, f.rl, f.settings.trainer);
  make_folder(f.settings.out);  // now that tasks and settings are known to go together
  FolderLock lock(f.settings.out);
  std::unique_ptr<RunsUi> ui = f.ui.start(f.settings.out);
  RunReport report(f.settings.out, sections(f, m));
  StageContext ctx{
      .dev = *dev, .model = *m.model, .parts = checkpoint_parts(m), .report = [&](int64_t steps) {
        report.write(steps);
      }};
  auto r = report.watch<StageResult>([&] { return run_stage(ctx, f.settings, stage); });
  print_result(r, stage, f.settings.out);
  return {r, stage.sampled_tokens()};
}

namespace {

void add_algorithm_flags(CLI::App* sub, RlFlags& f) {
  std::string names;
  for (const RlAlgorithm& a : rl_algorithms()) names += (names.empty() ? "" : ", ") + a.name;
  sub->add_option("--algorithm", f.algorithm, names + "; the flags below change what it implies")
      ->capture_default_str();
  PolicyLoss& loss = f.rl.algorithm.loss;
  RlFlags::Overrides& o = f.set;
  sub->add_option("--beta", o.beta, "weight of the KL divergence from the reference policy")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--clip-low", o.clip_low, "ratios count down to 1 minus this")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--clip-high", o.clip_high, "ratios count up to 1 plus this (cispo: up to this)")
      ->check(CLI::NonNegativeNumber);
  std::map<std::string, LossMean> means = {{"sequence", LossMean::kSequence},
                                           {"constant", LossMean::kConstant},
                                           {"token", LossMean::kToken}};
  sub->add_option("--loss-mean", o.mean,
                  "sequence (of answers' means), token (over all tokens) or constant (length)")
      ->transform(CLI::CheckedTransformer(means));
  std::map<std::string, AdvantageScale> scales = {{"none", AdvantageScale::kNone},
                                                  {"group", AdvantageScale::kGroup},
                                                  {"group-sample", AdvantageScale::kGroupSample},
                                                  {"batch", AdvantageScale::kBatch}};
  sub->add_option("--advantage", o.scale,
                  "what rewards are divided by: none, the deviation of the group (group-sample: "
                  "of n - 1) or of the batch")
      ->transform(CLI::CheckedTransformer(scales));
  sub->add_option("--mini-batches", o.mini_batches, "updates per pass over a step's answers")
      ->check(CLI::PositiveNumber);
  sub->add_option("--epochs", f.rl.epochs, "passes over a step's answers")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--dynamic-sampling", o.dynamic_sampling,
                  "true: other questions for groups whose rewards are all equal");
  sub->add_option("--overlong-filter", o.overlong_filter,
                  "true: answers cut at the limit do not count");
  sub->add_option("--overlong-zone", o.overlong_zone,
                  "share of the limit in which a penalty for length grows to 1")
      ->check(CLI::Range(0.0, 1.0));
  sub->add_flag("--unbiased-kl", f.unbiased_kl, "V3.2: the KL estimate times the ratio");
  sub->add_option("--stale-delta", o.stale_delta,
                  "V3.2: wrong answers whose mean log ratio fell below minus this do not count")
      ->check(CLI::NonNegativeNumber);
  std::map<std::string, Correction> corrections = {
      {"none", Correction::kNone},
      {"truncate", Correction::kTruncate},
      {"mask", Correction::kMask},
      {"truncate-sequence", Correction::kTruncateSequence},
      {"mask-sequence", Correction::kMaskSequence}};
  sub->add_option("--correction", loss.correction,
                  "importance weights of trainer against sampler: none, truncate or mask, of "
                  "tokens or (-sequence) of answers")
      ->transform(CLI::CheckedTransformer(corrections));
  sub->add_option("--correction-cap", loss.correction_cap, "their largest")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--refresh", f.rl.reference_refresh,
                  "steps until the reference becomes the policy (0: never)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

void add_rollout_flags(CLI::App* sub, RlFlags& f) {
  RlSettings& s = f.rl;
  sub->add_option("--groups", s.groups, "questions per step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--samples", s.samples, "answers to each")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--temperature", s.temperature, "of the answers, and of the policy learned")
      ->check(CLI::Range(0.05, 10.0))
      ->capture_default_str();
  sub->add_option("--top-k", s.rollout.top_k,
                  "answers are drawn from the most probable tokens (0: off)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--top-p", s.rollout.top_p, "and from the fewest with this share (1: off)")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  sub->add_option(
         "--min-p", s.rollout.min_p,
         "and from those with this share of the best one's probability; what is learned is "
         "the policy over the tokens that were left")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str();
  sub->add_flag("--keep-routing", s.rollout.keep_routing,
                "V3.2: training sends every token to the experts that it was sampled with");
  sub->add_flag("--exact-rollouts", s.rollout.exact,
                "sampling attends as training does (MLA expanded), so that their log-probabilities "
                "agree to 1e-6, for a larger cache and fewer tokens/s; --dtype f32 always does");
  sub->add_option("--max-tokens", s.rollout.max_tokens, "of an answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--reward-accuracy", s.reward.accuracy, "weight of the right answer")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--reward-format", s.reward.format, "weight of one thought and one answer")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--reward-language", s.reward.language,
                  "weight of the thought's words in --language")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--reward-chance", s.reward.chance,
                  "weight of a fair coin thrown for each answer (a control)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--language", s.reward.target_language, "en or zh")
      ->check(CLI::IsMember({"en", "zh"}))
      ->capture_default_str();
  sub->add_flag("--no-think", f.no_think, "prompts do not begin a thought");
  add_task_template_flag(sub, f.model.chat_template);
  add_speculate_flag(sub, s.rollout.speculate);
  sub->add_flag("--curriculum", s.curriculum,
                "from the lowest levels up, a rung whenever four of five answers are right");
}

void add_run_flags(CLI::App* sub, RlFlags& f) {
  StageSettings& s = f.settings;
  s.trainer.balance_alpha = 0;
  s.eval_every = 5;
  s.save_every = s.sample_every = 20;
  f.stage.add(sub, s);
  sub->add_option("--micro-batch", f.rl.micro_batch_tokens, "tokens per forward and backward")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--eval-items", f.rl.evaluation.items, "held-out questions")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace

void RlFlags::add(CLI::App* sub) {
  sub->add_option("model", model.path, "model folder or run folder (GGUF with --lora)")->required();
  model.add_lora(sub);
  sub->add_option("--task", rl.tasks,
                  "tasks and their levels and shares: parity:20, addition:8-12*2,FILE.jsonl")
      ->required();
  add_algorithm_flags(sub, *this);
  add_rollout_flags(sub, *this);
  add_run_flags(sub, *this);
  device.add(sub);
  ui.add(sub);
}

void add_rl(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("rl", "learn from answers that a program can check");
  auto f = std::make_shared<RlFlags>();
  f->add(sub);
  sub->callback([f, &run] { run = [f] { return rl_job(*f).result.stopped ? 130 : 0; }; });
}

}  // namespace wels
