// wels colearn: a large and a small model teach each other in turns (distill/colearn.h).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "apps/commands.h"
#include "apps/new_folder.h"
#include "apps/sft_command.h"
#include "apps/ui_flags.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/progress.h"
#include "distill/colearn.h"
#include "train/memory_plan.h"

namespace wels {
namespace {

struct ColearnFlags {
  DeviceFlags device;
  UiFlags ui;
  SftDataFlags data;
  ColearnSettings s;
  std::string large, small, channels = "A,B1,B2,B3,C", dtype = "bf16";
  double gflops = 1000;
  bool no_think = false;
};

void choose_channels(const std::string& list, ColearnSettings& s) {
  s.a = s.b1 = s.b2 = s.b3 = s.c = false;
  if (list == "none") return;
  std::istringstream in(list);
  for (std::string one; std::getline(in, one, ',');) {
    bool* channel = one == "A"    ? &s.a
                    : one == "B1" ? &s.b1
                    : one == "B2" ? &s.b2
                    : one == "B3" ? &s.b3
                    : one == "C"  ? &s.c
                                  : nullptr;
    if (!channel)
      throw Error("--channels", fmt::format("there is no channel \"{}\"", one),
                  "name some of A, B1, B2, B3, C, separated by commas, or none");
    *channel = true;
  }
}

void print_table(const ColearnResult& r) {
  fmt::print("{:>5} {:8} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8} {:>6} {:>6}\n", "round", "phase",
             "GFLOP", "small", "large", "nats S", "nats L", "KL", "agree", "S not L");
  auto row = [](const std::string& round, const std::string& name, double flops,
                const PairEvaluation& e, bool kept) {
    fmt::print("{:>5} {:8} {:9.1f} {:8.3f} {:8.3f} {:9.4f} {:9.4f} {:8.4f} {:6.3f} {:6.3f}{}\n",
               round, name, flops / 1e9, e.accuracy[0], e.accuracy[1], e.nats[0], e.nats[1], e.kl,
               e.agreement, e.complementarity, kept ? "" : "  rolled back");
  };
  row("", "start", 0, r.before, true);
  for (const ColearnPhase& p : r.phases)
    row(fmt::format("{}", p.round), p.name, p.flops, p.after, p.kept);
}

// Either one learns while the other one says what it thinks and answers questions.
void require_pair_memory(const Device& dev, const ColearnSettings& s, const ModelConfig& large,
                         const ModelConfig& small) {
  InferenceShape says{.dtype = s.sft.trainer.dtype};
  says.stored = [](const WeightSpec&) { return DType::kF32; };
  says.context = s.rl_groups * s.rl_samples * s.rollout.max_tokens;
  int64_t available = memory_available_bytes() + rss_bytes();
  for (auto [learner, other] : {std::pair{&large, &small}, std::pair{&small, &large}}) {
    require_memory(dev, *learner,
                   {.trainer = s.sft.trainer,
                    .sequence_length = std::min(s.sft.longest, s.sft.micro_batch_tokens),
                    .batch_tokens = s.sft.micro_batch_tokens,
                    .micro_batch_tokens = s.sft.micro_batch_tokens,
                    .mtp_lambda = s.sft.mtp_lambda,
                    .samples = true,
                    .teacher = teacher_bytes(dev, *other, says, s.sft.micro_batch_tokens)},
                   available);
  }
}

// Every phase makes a step at least, whatever it costs: said where that is more than its allowance.
// Answers are taken to be as long as the examples.
void warn_of_overspending(const ColearnSettings& s, const ModelConfig& large,
                          const ModelConfig& small, const ExampleSource& train) {
  int64_t count = train.size() < 0 ? s.sft.batch : std::min(train.size(), s.sft.batch);
  double length = 0;
  for (int64_t i = 0; i < count; ++i)
    length += static_cast<double>(train.example(i).size() - 1) / static_cast<double>(count);
  double of_large = length * training_flops_per_token(large),
         of_small = length * training_flops_per_token(small);
  auto batch = static_cast<double>(s.sft.batch), pool = static_cast<double>(s.pool),
       questions = static_cast<double>(s.explore.questions),
       tries = static_cast<double>(s.explore.tries),
       answers = static_cast<double>(s.rl_groups * s.rl_samples);
  // A pass forward is a third of a trained token.
  double a = batch * (of_small + (s.a ? of_large / 3 : 0));
  double b = batch * (of_large + (s.b1 ? of_small / 3 : 0));
  if (s.b2)
    b += (train.size() < 0 ? pool : std::min(pool, static_cast<double>(train.size()))) * of_small /
         3;
  if (s.b3) b += questions * (tries * of_small + of_large) / 3;
  double c = answers * of_large * 4 / 3;
  double share = s.c ? s.rl_share : 0;
  double least = 0;  // of a round
  if (share < 1) least = std::max(a, b) / (1 - share);
  if (share > 0) least = std::max(least, c / share);
  if (least > s.round_flops)
    log_warn(
        "--gflop {:.3g}: a step, with what is explored and scored for it, takes more than its "
        "phase's share, and every phase makes one; --gflop {:.3g} or more would hold",
        s.round_flops / 1e9, std::ceil(least / 1e9));
}

// Both are asked, and learn, in the one template that their answers are read in.
ChatTemplate common_template(const SftModel& large, const SftModel& small) {
  if (!large.chat_template || !small.chat_template || *large.chat_template != *small.chat_template)
    throw Error(small.folder, "has another chat template than " + large.folder,
                "teach two models of one template");
  return *large.chat_template;
}

int colearn_command(ColearnFlags f) {
  f.device.apply();
  ColearnSettings& s = f.s;
  choose_channels(f.channels, s);
  if (f.data.task.empty())
    throw Error("--task", "is missing", "both models need questions that a program can check");
  s.tasks = f.data.task;
  s.round_flops = f.gflops * 1e9;
  s.sft.trainer.dtype = s.rollout.dtype = f.dtype == "f32" ? DType::kF32 : DType::kBF16;
  s.sft.trainer.optimizer.weight_decay = 0;
  s.rollout.thinking = !f.no_think;
  SftModelFlags large_flags, small_flags;
  large_flags.path = f.large;
  small_flags.path = f.small;
  SftModel large = open_checkpoint(large_flags), small = open_checkpoint(small_flags);
  // Either one teaches: both ways must fit.
  require_same_vocabulary(f.large, *large.tokenizer, large.config.vocab_size, *small.tokenizer,
                          small.config.vocab_size);
  require_same_vocabulary(f.small, *small.tokenizer, small.config.vocab_size, *large.tokenizer,
                          large.config.vocab_size);
  s.rollout.chat_template = common_template(large, small);
  double ratio = static_cast<double>(count_parameters(large.config).active) /
                 static_cast<double>(count_parameters(small.config).active);
  if (ratio < 1)
    throw Error(f.large, "has fewer active parameters than " + f.small,
                "name the large model first");
  if (ratio > 6)
    log_warn(
        "the large model has {:.1f} times the small one's active parameters: beyond 6 a small "
        "teacher was found to help little",
        ratio);
  int64_t room =
      std::min(large.config.max_position_embeddings, small.config.max_position_embeddings);
  s.sft.longest = std::min<int64_t>(1024, room);
  s.sft.micro_batch_tokens = std::max(s.sft.micro_batch_tokens, s.sft.longest);
  NewFolder made(s.out);
  FolderLock lock(s.out);
  std::unique_ptr<RunsUi> ui = f.ui.start(s.out);
  SftData data =
      open_sft_data(f.data, *large.tokenizer, large.chat_template, s.sft.longest, s.sft.seed);
  auto dev = make_device(f.device.device);
  require_pair_memory(*dev, s, large.config, small.config);
  warn_of_overspending(s, large.config, small.config, *data.train);
  log_info("large {} ({} active), small {} ({} active), {} on {}", large.folder,
           human_count(static_cast<double>(count_parameters(large.config).active)), small.folder,
           human_count(static_cast<double>(count_parameters(small.config).active)), data.about,
           dev->name());
  const std::string models[2] = {small.folder, large.folder};
  ColearnResult r =
      colearn(*dev, models, *large.tokenizer, large.files, *data.train, *data.held_out, s,
              [](const ColearnResult& so_far) {
                const ColearnPhase& p = so_far.phases.back();
                log_info("round {} {}: small {:.3f}, large {:.3f}{}", p.round, p.name,
                         p.after.accuracy[0], p.after.accuracy[1], p.kept ? "" : " (rolled back)");
              });
  print_table(r);
  fmt::print("small {} ({:.1f} GFLOP)\nlarge {} ({:.1f} GFLOP)\n", r.model[0], r.flops[0] / 1e9,
             r.model[1], r.flops[1] / 1e9);
  if (r.stopped) fmt::print("stopped; the same command resumes it\n");
  return r.stopped ? 130 : 0;
}

void add_channel_flags(CLI::App* sub, ColearnFlags& f) {
  ColearnSettings& s = f.s;
  sub->add_option("--channels", f.channels,
                  "A (small learns from large), B1 (large from small where that knows better), B2 "
                  "(small selects), B3 (small explores), C (GRPO); none: each alone")
      ->capture_default_str();
  sub->add_option("--rounds", s.rounds, "")->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--gflop", f.gflops, "1e9 operations of each model in a round")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--rl-share", s.rl_share, "of them for C")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--lambda", s.lambda, "A: steps on the small model's own answers")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--alpha", s.alpha, "A: weight of the cross-entropy on gold")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--kl-weight", s.w, "B1: in the first round, falling to 0")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--pool", s.pool, "B2: examples scored in a round")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--replay", s.replay, "B3: share of found answers among the examples")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  sub->add_option(
         "--favour", s.favour,
         "B3: how much more often C asks the large model what the small one alone answered")
      ->check(CLI::Range(1.0, 100.0))
      ->capture_default_str();
  sub->add_option("--explore", s.explore.questions, "B3: questions in a round")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--explore-tries", s.explore.tries, "B3: the small model's answers to each")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

}  // namespace

void add_colearn(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("colearn", "a large and a small model teach each other");
  auto f = std::make_shared<ColearnFlags>();
  ColearnSettings& s = f->s;
  s.sft.batch = 64;
  s.sft.eval_examples = 128;
  s.sft.eval_every = 50;
  s.sft.save_every = 50;
  sub->add_option("large", f->large, "model or run folder")->required();
  sub->add_option("small", f->small, "model or run folder, of the same tokenizer")->required();
  sub->add_option("-o,--out", s.out, "folder of the rounds")->required();
  add_channel_flags(sub, *f);
  f->data.add(sub);
  sub->add_option("--batch", s.sft.batch, "examples per step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--max-tokens", s.rollout.max_tokens, "of an answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--groups", s.rl_groups, "C: questions per step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--samples", s.rl_samples, "C: answers to each")
      ->check(CLI::Range(2, 1024))
      ->capture_default_str();
  sub->add_option("--lr-small", s.lr_small, "")->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--lr-large", s.lr_large, "")->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--lr-rl", s.lr_rl, "C: of both")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--eval-items", s.eval_items, "held-out questions of the gate")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--save-every", s.sft.save_every, "steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--dtype", f->dtype, "bf16 or f32 activations")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  sub->add_option("--seed", s.sft.seed, "")->capture_default_str();
  sub->add_flag("--no-think", f->no_think, "prompts do not begin a thought");
  f->device.add(sub);
  f->ui.add(sub);
  sub->callback([f, &run] { run = [f] { return colearn_command(*f); }; });
}

}  // namespace wels
