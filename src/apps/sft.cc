// wels sft: supervised fine-tuning of a checkpoint, or of a new model, on chats or generated tasks.
// Everything lands in one run folder; the same command again resumes it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/commands.h"
#include "apps/new_folder.h"
#include "apps/run_sections.h"
#include "apps/sft_command.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/progress.h"
#include "base/threads.h"
#include "train/memory_plan.h"
#include "train/presets.h"
#include "train/report.h"

namespace wels {
namespace {

constexpr int64_t kTaskSteps = 400;  // recipe: enough for nano on 20 bits of parity

void split_paths(SftFlags& f) {
  auto first = f.paths.begin();
  if (!f.model.is_new()) {
    if (first == f.paths.end())
      throw Error("sft", "there is no model to train",
                  "give a model folder, or the shape of a new one: --preset nano");
    f.model.path = *first++;
  }
  f.data.files.assign(first, f.paths.end());
}

// Tokens of an example where no flag says: four times the usual length for chats, since most are
// short and none costs more than its own rows.
void fill_lengths(SftFlags& f, const ModelConfig& cfg) {
  SftSettings& s = f.settings;
  int64_t usual = std::min<int64_t>(f.data.task.empty() ? 4096 : 1024, cfg.max_position_embeddings);
  s.longest = f.seq > 0 ? f.seq : usual;
  if (s.longest < 2 || s.longest > cfg.max_position_embeddings) {
    throw Error("--seq",
                fmt::format("{} is not between 2 and the model's {} positions", s.longest,
                            cfg.max_position_embeddings),
                "use a shorter one");
  }
  if (s.micro_batch_tokens < s.longest) s.micro_batch_tokens = s.longest;
}

void fill_settings(SftFlags& f, const SftModel& m, const SftData& data) {
  SftSettings& s = f.settings;
  if (data.held_out->size() < 0 && s.eval_examples == 0)
    s.eval_examples = SftSettings().eval_examples;
  int64_t steps = kTaskSteps;
  if (data.train->size() >= 0) {
    double all = f.epochs * static_cast<double>(data.train->size());
    steps =
        std::max<int64_t>(1, static_cast<int64_t>(std::ceil(all / static_cast<double>(s.batch))));
  }
  // A new model: the preset's rate, constant for half of the steps. A trained one: R1's B.4.2,
  // cosine to a tenth from the start; adapters take more.
  bool fresh = f.model.is_new();
  f.stage.apply(s, {.steps = steps,
                    .lr = fresh    ? m.learning_rate
                          : m.lora ? 2e-4
                                   : 5e-5,
                    .weight_decay = fresh ? 0.1 : 0,
                    .stable = fresh ? 0.5 : 0,
                    .new_model = fresh});
  // V3 §4.2: at first, at last. Adapters leave MTP modules as they are.
  s.mtp_lambda = f.mtp_lambda >= 0 ? f.mtp_lambda : fresh ? 0.3 : m.lora ? 0 : 0.1;
  require_adaptable(s, m);
}

TrainingShape training_shape(const SftSettings& s, SftModel& m) {
  return {.trainer = s.trainer,
          .sequence_length = std::min(s.longest, s.micro_batch_tokens),
          .batch_tokens = s.micro_batch_tokens,
          .micro_batch_tokens = s.micro_batch_tokens,
          .mtp_lambda = s.mtp_lambda,
          .average = s.ema > 0,
          .samples = s.sample_every > 0,
          .lora = m.lora,
          .stored = m.model ? stored_types(*m.model) : nullptr};
}

std::vector<InfoSection> sections(const SftFlags& f, const SftModel& m, const SftData& data,
                                  double peak_flops) {
  const SftSettings& s = f.settings;
  auto num = [](auto x) { return fmt::format("{}", x); };
  return {{"Recipe",
           {{"stage", f.kind},
            {"from", m.about},
            {"optimiser", f.stage.optimizer},
            {"peak learning rate", num(s.schedule.peak)},
            {"examples per step", num(s.batch)},
            {"longest example", num(s.longest)},
            {"type", f.stage.dtype},
            {"MTP lambda", num(s.mtp_lambda)},
            {"seed", num(s.seed)}}},
          model_section(m.config),
          {"Data", {{"examples", data.about}}},
          machine_section(machine(), thread_count(), peak_flops / 1e9)};
}

}  // namespace

void check_sft_flags(const SftFlags& f) {
  const std::string& chat = f.model.chat_template;
  if (chat != "auto" && chat != "none") chat_template_by_name(chat);
  if (!f.model.preset.empty()) preset(f.model.preset);
  check_adapters(f.model.lora, f.stage, f.settings);
}

StageResult sft_job(SftFlags f, const SftStageMaker& make) {
  f.device.apply();
  split_paths(f);
  SftSettings& s = f.settings;
  NewFolder made(s.out);
  FolderLock lock(s.out);
  std::unique_ptr<RunsUi> ui = f.ui.start(s.out);
  auto dev = make_device(f.device.device);
  SftModel m = open_sft_model(f.model, f.data, s.out, s.seed);
  fill_lengths(f, m.config);
  SftData data = open_sft_data(f.data, *m.tokenizer, m.chat_template, s.longest, s.seed);
  fill_settings(f, m, data);
  if (m.lora) load_sft_model(m, s.seed);  // mapped: nothing is copied
  TrainingShape shape = training_shape(s, m);
  if (f.other_models) shape.teacher = f.other_models(*dev, s);
  require_memory(*dev, m.config, shape, memory_available_bytes() + rss_bytes());
  if (!m.lora) load_sft_model(m, s.seed);
  s.model = model_settings(m);
  log_info("{}; {}", describe(m), dev->name());

  auto sample = [&]() -> std::string {
    if (data.held_out->size() == 0) return {};
    return answer_now(*dev, m, s.trainer.dtype, data.held_out->example(0));
  };
  std::unique_ptr<SftStage> built =
      make ? make(*dev, m, data, s, sample)
           : std::make_unique<SftStage>(*dev, *m.model, *data.train, *data.held_out, s, sample);
  SftStage& stage = *built;
  RunReport report(s.out, sections(f, m, data, dev->measure_peak_flops(s.trainer.dtype)));
  StageContext ctx{
      .dev = *dev, .model = *m.model, .parts = checkpoint_parts(m), .report = [&](int64_t steps) {
        report.write(steps);
      }};
  auto r = report.watch<StageResult>([&] { return run_stage(ctx, s, stage); });
  const AnswerEvaluation& e = stage.last_evaluation();
  fmt::print("{}", how_it_ended(r));
  if (r.evaluated && e.tokens > 0)
    fmt::print("; held-out answers: {:.4f} nats per token, {:.2f} % of tokens (best {:.4f} nats)",
               e.loss, 100 * e.accuracy, r.best);
  fmt::print("\ncheckpoint {}\nreport {}/report.html\n", r.checkpoint, s.out);
  if (r.stopped) fmt::print("the same command resumes it\n");
  return r;
}

int sft_command(SftFlags f, const SftStageMaker& make) {
  return sft_job(std::move(f), make).stopped ? 130 : 0;
}

void SftFlags::add(CLI::App* sub) {
  SftSettings& s = settings;
  sub->add_option("paths", paths,
                  "the model (folder of a checkpoint or a run; none with --preset), then .jsonl "
                  "files: Alpaca, ShareGPT, OpenAI messages, {\"text\"}, plain or .gz or .zst");
  model.add(sub);
  data.add(sub);
  sub->add_option("--seq", seq, "tokens of an example at most (0: 4096, of tasks 1024)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--batch", s.batch, "examples per step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--micro-batch", s.micro_batch_tokens, "tokens per forward and backward")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--epochs", epochs, "files: how often each example is seen, without --steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--mtp-lambda", mtp_lambda,
                  "weight of the MTP loss (default: 0.3 in a new model, else 0.1)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--eval-examples", s.eval_examples, "held-out examples (0: all, of tasks 256)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--ema", s.ema, "decay of an average of the weights, saved as OUT/ema (0: none)")
      ->check(CLI::Range(0.0, 0.99999));
  stage.add(sub, s);
  device.add(sub);
  ui.add(sub);
}

void add_sft(CLI::App& app, Command& run) {
  CLI::App* sub =
      app.add_subcommand("sft", "learn answers: from chats (.jsonl) or generated tasks");
  auto f = std::make_shared<SftFlags>();
  f->add(sub);
  sub->callback([f, &run] { run = [f] { return sft_command(*f, {}); }; });
}

}  // namespace wels
