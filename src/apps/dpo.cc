// wels dpo: direct preference optimisation of a checkpoint on pairs of answers. Everything lands in
// one run folder; the same command again resumes it. The starting model's log-probabilities of all
// answers are computed once and kept there, <out>/reference.safetensors.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "apps/commands.h"
#include "apps/new_folder.h"
#include "apps/run_sections.h"
#include "apps/sft_model.h"
#include "apps/stage_flags.h"
#include "apps/ui_flags.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/progress.h"
#include "base/signal.h"
#include "base/threads.h"
#include "data/hash.h"
#include "data/json_lines.h"
#include "formats/safetensors.h"
#include "train/dpo_stage.h"
#include "train/memory_plan.h"

namespace wels {
namespace {

struct DpoFlags {
  DeviceFlags device;
  UiFlags ui;
  SftModelFlags model;
  StageFlags stage;
  DpoSettings settings;
  std::vector<std::string> files;
  int64_t seq = 0;
  double epochs = 1, held_out = 0.02;
};

// --- the reference ---

struct Reference {
  std::vector<PairLogp> train, held_out;
};

// [pairs, 2] f64: chosen, rejected.
TensorSource source_of(const char* name, const std::vector<PairLogp>& logps) {
  return {
      name, DType::kF64, {static_cast<int64_t>(logps.size()), 2}, [&logps](const ByteSink& sink) {
        sink(logps.data(), logps.size() * sizeof(PairLogp));
      }};
}

bool read_part(const SafetensorsReader& reader, const char* name, int64_t pairs,
               std::vector<PairLogp>& out) {
  const TensorEntry* e = reader.find(name);
  if (!e || e->dtype != DType::kF64 || e->shape != std::vector<int64_t>{pairs, 2}) return false;
  out.resize(static_cast<size_t>(pairs));
  std::memcpy(out.data(), e->data.data(), e->data.size());
  return true;
}

// What an earlier call has computed from the same model and data.
bool read_reference(const std::string& path, const std::string& of, const PreferenceData& data,
                    Reference& out) {
  if (!std::filesystem::exists(path)) return false;
  SafetensorsReader reader(path);
  auto it = reader.metadata().find("of");
  return it != reader.metadata().end() && it->second == of &&
         read_part(reader, "train", data.train.size(), out.train) &&
         read_part(reader, "held_out", data.held_out.size(), out.held_out);
}

// False: stopped by a signal.
bool find_reference(Device& dev, SftModel& m, const DpoSettings& s, const PreferenceData& data,
                    Reference& out) {
  std::string path = s.out + "/reference.safetensors";
  std::string of = fmt::format("{} {:016x} {:016x} {} {}", s.model.at("start").get<std::string>(),
                               data.train.hash(), data.held_out.hash(), name(s.trainer.dtype),
                               s.micro_batch_tokens);
  if (read_reference(path, of, data, out)) return true;
  StopSignal stop;
  int64_t before = 0, all = data.train.size() + data.held_out.size();
  Progress progress("reference", static_cast<double>(all), "pairs", s.quiet);
  auto tick = [&](int64_t done) {
    progress.set(before + done);
    return !stop.requested();
  };
  auto part = [&](const Preferences& p, std::vector<PairLogp>& logps) {
    logps = pair_logps(dev, *m.model, s.trainer, p, s.micro_batch_tokens, tick);
    before += p.size();
    return static_cast<int64_t>(logps.size()) == p.size();
  };
  if (!part(data.train, out.train) || !part(data.held_out, out.held_out)) return false;
  write_safetensors(path, {source_of("train", out.train), source_of("held_out", out.held_out)},
                    {{"of", of}});
  return true;
}

// --- the command ---

PreferenceData read_data(const DpoFlags& f, const SftModel& m) {
  PreferenceData data = read_preferences(
      list_json_lines(f.files), *m.tokenizer,
      {.chat_template = m.chat_template, .longest = f.settings.longest, .held_out = f.held_out});
  log_info(
      "{} pairs, {} held out{}", data.train.size() + data.held_out.size(), data.held_out.size(),
      data.too_long > 0
          ? fmt::format("; {} left out, longer than {} tokens", data.too_long, f.settings.longest)
          : "");
  if (f.held_out > 0 && data.held_out.size() == 0)
    log_warn("no question is held out: there is no validation (--held-out {:g})", f.held_out);
  return data;
}

void fill_settings(DpoFlags& f, const SftModel& m, const PreferenceData& data) {
  DpoSettings& s = f.settings;
  double all = f.epochs * static_cast<double>(data.train.size());
  auto steps = static_cast<int64_t>(std::ceil(all / static_cast<double>(s.batch)));
  f.stage.apply(s, {.steps = std::max<int64_t>(steps, 1),
                    .lr = m.lora ? 1e-5 : 1e-6,  // the paper's 1e-6; adapters take more
                    .weight_decay = 0,
                    .stable = 0,
                    .new_model = false});
  require_adaptable(s, m);
}

std::vector<InfoSection> sections(const DpoFlags& f, const SftModel& m, const PreferenceData& data,
                                  double peak_flops) {
  const DpoSettings& s = f.settings;
  auto num = [](auto x) { return fmt::format("{}", x); };
  return {{"Recipe",
           {{"stage", "direct preference optimisation"},
            {"from", m.about},
            {"beta", num(s.beta)},
            {"optimiser", f.stage.optimizer},
            {"peak learning rate", num(s.schedule.peak)},
            {"pairs per step", num(s.batch)},
            {"type", f.stage.dtype},
            {"seed", num(s.seed)}}},
          model_section(m.config),
          {"Data", {{"pairs", num(data.train.size())}, {"held out", num(data.held_out.size())}}},
          machine_section(machine(), thread_count(), peak_flops / 1e9)};
}

void fill_lengths(DpoFlags& f, const ModelConfig& cfg) {
  DpoSettings& s = f.settings;
  s.longest = f.seq > 0 ? f.seq : std::min<int64_t>(2048, cfg.max_position_embeddings);
  if (s.longest < 2 || s.longest > cfg.max_position_embeddings) {
    throw Error("--seq",
                fmt::format("{} is not between 2 and the model's {} positions", s.longest,
                            cfg.max_position_embeddings),
                "use a shorter one");
  }
}

void require_room(const Device& dev, const DpoSettings& s, SftModel& m) {
  // Both answers of a pair share a micro-batch.
  int64_t rows = std::max(s.micro_batch_tokens, 2 * s.longest);
  require_memory(dev, m.config,
                 {.trainer = s.trainer,
                  .sequence_length = s.longest,
                  .batch_tokens = rows,
                  .micro_batch_tokens = rows,
                  .mtp_lambda = 0,
                  .samples = s.sample_every > 0,
                  .lora = m.lora,
                  .stored = m.model ? stored_types(*m.model) : nullptr},
                 memory_available_bytes() + rss_bytes());
}

int stopped_early() {
  fmt::print("stopped before training; the same command starts again\n");
  return 130;
}

int dpo_command(DpoFlags f) {
  f.device.apply();
  DpoSettings& s = f.settings;
  NewFolder made(s.out);
  FolderLock lock(s.out);
  std::unique_ptr<RunsUi> ui = f.ui.start(s.out);
  auto dev = make_device(f.device.device);
  SftModel m = open_checkpoint(f.model);
  fill_lengths(f, m.config);
  PreferenceData data = read_data(f, m);
  fill_settings(f, m, data);
  if (m.lora) load_sft_model(m, s.seed);  // mapped: nothing is copied
  require_room(*dev, s, m);
  if (!m.lora) load_sft_model(m, s.seed);
  s.model = model_settings(m);
  log_info("{}; {}", describe(m), dev->name());
  Reference reference;
  StopSignal stop;  // that of the reference forgets at its end
  if (!find_reference(*dev, m, s, data, reference) || stop.requested()) return stopped_early();

  const Preferences& shown = data.held_out.size() > 0 ? data.held_out : data.train;
  DpoStage stage(data, reference.train, reference.held_out, s,
                 [&] { return answer_now(*dev, m, s.trainer.dtype, shown.chosen.example(0)); });
  RunReport report(s.out, sections(f, m, data, dev->measure_peak_flops(s.trainer.dtype)));
  StageContext ctx{
      .dev = *dev, .model = *m.model, .parts = checkpoint_parts(m), .report = [&](int64_t steps) {
        report.write(steps);
      }};
  auto r = report.watch<StageResult>([&] { return run_stage(ctx, s, stage); });
  const DpoSummary& e =
      stage.last_evaluation().pairs > 0 ? stage.last_evaluation() : stage.last_step();
  fmt::print("{}", how_it_ended(r));
  if (r.evaluated)
    fmt::print("; loss {:.4f}, margin {:.3f}, {:.1f} % of {} pairs right", e.loss, e.margin,
               100 * e.accuracy, data.held_out.size() > 0 ? "held-out" : "the last step's");
  fmt::print("\ncheckpoint {}\nreport {}/report.html\n", r.checkpoint, s.out);
  if (r.stopped) fmt::print("the same command resumes it\n");
  return r.stopped ? 130 : 0;
}

}  // namespace

void add_dpo(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("dpo", "learn which of two answers is the better one");
  auto f = std::make_shared<DpoFlags>();
  DpoSettings& s = f->settings;
  sub->add_option("model", f->model.path, "folder of a checkpoint or a run (GGUF with --lora)")
      ->required();
  sub->add_option("data", f->files,
                  ".jsonl files of {\"prompt\", \"chosen\", \"rejected\"}, or a conversation with "
                  "\"chosen\" and \"rejected\"; plain or .gz or .zst")
      ->required();
  f->model.add_template(sub);
  f->model.add_lora(sub);
  sub->add_option("--beta", s.beta, "how far the model may go from where it began (less: further)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--seq", f->seq, "tokens of a prompt with an answer at most (0: 2048)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--batch", s.batch, "pairs per step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--micro-batch", s.micro_batch_tokens, "tokens per forward and backward")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--epochs", f->epochs, "how often each pair is seen, without --steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--held-out", f->held_out, "share of the questions that validates, by hash")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str();
  sub->add_option("--eval-pairs", s.eval_pairs, "held-out pairs (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  f->stage.add(sub, s);
  f->device.add(sub);
  f->ui.add(sub);
  sub->callback([f, &run] { run = [f] { return dpo_command(*f); }; });
}

}  // namespace wels
