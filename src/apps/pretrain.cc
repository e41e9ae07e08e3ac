// wels pretrain: raw text → tokenizer, token shards, model, report. Everything lands in one run
// folder; the same command again resumes it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/commands.h"
#include "apps/pretrain_data.h"
#include "apps/run_sections.h"
#include "apps/stage_flags.h"
#include "apps/ui_flags.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/progress.h"
#include "base/threads.h"
#include "engine/engine.h"
#include "formats/hf_config.h"
#include "train/presets.h"
#include "train/pretrain.h"
#include "train/report.h"
#include "train/run_folder.h"

namespace wels {
namespace {

constexpr int64_t kSampleTokens = 120;

struct PretrainFlags {
  DeviceFlags device;
  UiFlags ui;
  DataFlags data;
  PretrainSettings settings;
  std::string preset = "nano", config, dtype = "bf16", optimizer = "adamw", schedule = "v3";
  std::string sample_prompt;
  int depth = 0;
  int64_t seq = 0, batch = 0, steps = 0, experts = -1, chosen = -1, mtp = -1, warmup = -1;
  double lr = 0;
  bool fp8 = false, recompute = false, dense = false, preset_given = false;
};

// --- model ---

PresetSettings choose_shape(const PretrainFlags& f) {
  std::vector<const char*> given;
  if (f.preset_given) given.push_back("--preset");
  if (f.depth > 0) given.push_back("--depth");
  if (!f.config.empty()) given.push_back("--config");
  if (given.size() > 1) {
    throw Error(given[0], fmt::format("does not go with {}: both choose the shape", given[1]),
                "give one of them");
  }
  PresetSettings p = f.depth > 0 ? preset_of_depth(f.depth) : preset(f.preset);
  if (!f.config.empty()) p.model = load_hf_config(f.config);
  ModelConfig& c = p.model;
  if (f.experts > 0) c.n_routed_experts = f.experts;
  if (f.chosen >= 0) c.num_experts_per_tok = f.chosen;
  if (f.mtp >= 0) c.num_nextn_predict_layers = f.mtp;
  if (f.dense || f.experts == 0) make_dense(c);
  return p;
}

// The flags that stand for "by the preset".
void fill_settings(PretrainFlags& f, const PresetSettings& p, const ModelConfig& cfg) {
  PretrainSettings& s = f.settings;
  s.sequence_length = f.seq > 0 ? f.seq : p.sequence_length;
  if (s.sequence_length > cfg.max_position_embeddings) {
    throw Error("--seq",
                fmt::format("{} is beyond the model's {} positions", s.sequence_length,
                            cfg.max_position_embeddings),
                "use a shorter one, or a config with a larger max_position_embeddings");
  }
  s.batch_tokens = std::max(f.batch > 0 ? f.batch : p.batch_tokens, s.sequence_length);
  s.schedule.kind = f.schedule == "wsd" ? Schedule::Kind::kWsd : Schedule::Kind::kV3;
  s.schedule.peak = f.lr > 0 ? f.lr : p.learning_rate;
  ParameterCount n = count_parameters(cfg);
  double horizon = p.tokens_per_active_parameter * static_cast<double>(n.active);
  s.schedule.steps =
      f.steps > 0 ? f.steps
                  : static_cast<int64_t>(std::ceil(horizon / static_cast<double>(s.batch_tokens)));
  s.schedule.warmup =
      f.warmup >= 0 ? f.warmup : std::clamp<int64_t>(s.schedule.steps / 50, 10, 2000);
  s.trainer.optimizer.muon = f.optimizer == "muon";
  s.trainer.dtype = f.dtype == "f32" ? DType::kF32 : DType::kBF16;
  s.trainer.fp8 = f.fp8;
  s.trainer.recompute = f.recompute;
  if (static_cast<float>(s.trainer.optimizer.eps) <= 0)
    throw Error("--eps", fmt::format("{} is 0 in 32 bits", s.trainer.optimizer.eps),
                "use 1e-30 or more");
  if (f.fp8 && f.dtype != "bf16")
    throw Error("--fp8", "goes with --dtype bf16", "drop --dtype f32");
  if (s.trainer.qk_clip > 0 && !cfg.is_mla())
    log_warn("--qk-clip: does nothing here: it is for MLA, the model has grouped queries");
  if (s.schedule.kind == Schedule::Kind::kV3 && s.schedule.decay_end < s.schedule.stable)
    throw Error("--decay-end",
                fmt::format("{} is before --stable {}", s.schedule.decay_end, s.schedule.stable),
                "use a larger share of the steps");
}

// A held-out text shorter than a sequence says little, and nothing of long contexts.
void warn_of_short_validation(const TokenShard& validation, int64_t sequence) {
  if (validation.tokens() > sequence) return;
  log_warn(
      "validation has {} tokens, fewer than one sequence of {}; a larger --split-share, --split "
      "tail or more text gives it more",
      validation.tokens(), sequence);
}

InfoSection recipe_section(const PretrainFlags& f, const ModelConfig& cfg) {
  const PretrainSettings& s = f.settings;
  const TrainerConfig& t = s.trainer;
  const OptimizerConfig& o = t.optimizer;
  const Schedule& c = s.schedule;
  auto num = [](auto x) { return fmt::format("{}", x); };
  auto off = [](double x) { return x > 0 ? fmt::format("{}", x) : std::string("off"); };
  auto yes = [](bool x) { return std::string(x ? "yes" : "no"); };
  bool wsd = c.kind == Schedule::Kind::kWsd;
  InfoSection out{"Recipe", {}};
  auto& rows = out.rows;
  rows.emplace_back("shape", !f.config.empty() ? "--config " + f.config
                             : f.depth > 0     ? fmt::format("--depth {}", f.depth)
                                               : f.preset);
  rows.emplace_back("steps",
                    s.minutes > 0 ? fmt::format("{} minutes of them", s.minutes) : num(c.steps));
  rows.emplace_back("tokens per step", num(s.batch_tokens));
  rows.emplace_back("micro-batch", fmt::format("{} tokens", s.micro_batch_tokens));
  rows.emplace_back("batch ramp", c.batch_start < 1
                                      ? fmt::format("from {} of it over {} of the steps",
                                                    c.batch_start, c.ramp_share)
                                      : "off");
  rows.emplace_back("sequence", num(s.sequence_length));
  rows.emplace_back("document mask", yes(s.document_mask));
  rows.emplace_back("peak learning rate", num(c.peak));
  rows.emplace_back("schedule", f.schedule);
  rows.emplace_back("warm-up",
                    fmt::format("{}{} steps", s.minutes > 0 ? "at most " : "", c.warmup));
  if (wsd) {
    rows.emplace_back("decay", fmt::format("the last {} of the steps, to 0", c.wsd_decay));
  } else {
    rows.emplace_back("constant until", fmt::format("{} of the steps", c.stable));
    rows.emplace_back("decay until", fmt::format("{} of the steps, to {} of the peak", c.decay_end,
                                                 c.final_ratio));
  }
  rows.emplace_back("optimiser", f.optimizer);
  if (o.muon) rows.emplace_back("Muon's momentum", num(o.momentum));
  rows.emplace_back("AdamW", fmt::format("β₁ {}, β₂ {}, ε {}", o.beta1, o.beta2, o.eps));
  rows.emplace_back("weight decay", num(o.weight_decay));
  rows.emplace_back("gradient clip", off(o.clip));
  rows.emplace_back("EMA", off(s.ema));
  rows.emplace_back("QK-clip", off(t.qk_clip));
  rows.emplace_back("type", t.fp8 ? "fp8" : f.dtype);
  rows.emplace_back("recompute", yes(t.recompute));
  if (cfg.n_routed_experts > 0) {
    rows.emplace_back("bias update", off(t.bias_update) + (t.bias_centred ? ", centred" : ""));
    rows.emplace_back("balance alpha", off(t.balance_alpha));
  }
  if (cfg.num_nextn_predict_layers > 0) rows.emplace_back("MTP lambda", num(s.mtp_lambda));
  rows.emplace_back("seed", num(s.seed));
  return out;
}

InfoSection data_section(const DataFlags& d, const std::string& tokenizer, const TokenShard& train,
                         const TokenShard& validation) {
  auto count = [](int64_t x) { return human_count(static_cast<double>(x)); };
  std::string corpus;
  for (const std::string& path : d.corpus) corpus += (corpus.empty() ? "" : " ") + path;
  if (corpus.empty()) corpus = fmt::format("{} MB of text found on this machine", d.local_mb);
  std::string split = d.split;
  if (d.split_share > 0) split += fmt::format(", {} validates", d.split_share);
  InfoSection out = {
      "Data",
      {{"corpus", corpus},
       {"tokenizer", tokenizer == "file" ? d.tokenizer : tokenizer},
       {"split", split},
       {"fill-in-the-middle", d.fim > 0 ? fmt::format("{}", d.fim) : "off"},
       {"training tokens", count(train.tokens())},
       {"validation tokens", count(validation.tokens())},
       {"text", human_bytes(static_cast<double>(train.text_bytes() + validation.text_bytes()))}}};
  // A run from before its checkpoints said so.
  std::erase_if(out.rows, [](const auto& row) { return row.second.empty(); });
  return out;
}

std::vector<InfoSection> sections(const PretrainFlags& f, const ModelConfig& cfg,
                                  const TokenShard& train, const TokenShard& validation,
                                  double peak_flops) {
  return {recipe_section(f, cfg), model_section(cfg),
          data_section(f.data, f.settings.tokenizer, train, validation),
          machine_section(machine(), thread_count(), peak_flops / 1e9)};
}

// --- the command ---

// The shape's config with the tokenizer's vocabulary and special tokens.
ModelConfig with_tokenizer(const PretrainFlags& f, ModelConfig cfg, const Tokenizer& tokenizer) {
  if (f.config.empty()) {
    cfg.vocab_size = tokenizer.vocab_size();
  } else if (tokenizer.vocab_size() > cfg.vocab_size) {
    throw Error(f.config,
                fmt::format("vocab_size {} is smaller than the tokenizer's {}", cfg.vocab_size,
                            tokenizer.vocab_size()),
                "raise vocab_size or use a smaller --vocab");
  }
  cfg.bos_token_id = tokenizer.bos() ? *tokenizer.bos() : -1;
  if (tokenizer.eos()) cfg.eos_token_ids = {*tokenizer.eos()};
  return cfg;
}

// What samples begin with. Throws Error where the model cannot go on from it.
std::vector<int32_t> sample_prompt(const std::string& text, const Tokenizer& tokenizer,
                                   int64_t positions) {
  std::vector<int32_t> ids;
  try {
    ids = tokenizer.encode_document(text);
  } catch (const Error& e) {
    throw Error("--sample-prompt", e.fact(), e.hint());
  }
  if (ids.empty()) ids = {0};
  auto length = static_cast<int64_t>(ids.size());
  if (length >= positions) {
    throw Error(
        "--sample-prompt",
        fmt::format("{} tokens do not fit into the model's {} positions", length, positions),
        "shorten it");
  }
  return ids;
}

int stopped_early() {
  fmt::print("stopped before training; the same command starts again\n");
  return 130;
}

int pretrain_command(PretrainFlags f) {
  f.device.apply();
  PretrainSettings& s = f.settings;
  make_folder(s.out);
  FolderLock lock(s.out);
  std::unique_ptr<RunsUi> ui = f.ui.start(s.out);
  auto dev = make_device(f.device.device);
  PresetSettings shape = choose_shape(f);
  std::vector<std::string> files = corpus_files(f.data);
  std::optional<RunStart> start = find_run_start(s.out);
  std::optional<std::string> tokenizer_json =
      make_tokenizer(f.data, files, shape.model.vocab_size, s.out, start);
  if (!tokenizer_json) return stopped_early();
  Tokenizer tokenizer = Tokenizer::from_json(*tokenizer_json, s.out + "/tokenizer.json");
  ModelConfig cfg = with_tokenizer(f, shape.model, tokenizer);
  fill_settings(f, shape, cfg);
  s.tokenizer = tokenizer_choice(f.data, shape.model.vocab_size, start);
  require_memory(*dev, s, cfg);
  std::vector<int32_t> prompt =
      sample_prompt(f.sample_prompt, tokenizer, cfg.max_position_embeddings);

  TextEncoder encoder = text_encoder(tokenizer);
  Prepared shards = prepare_run(f.data, files, encoder, s.out, s.seed, start);
  if (shards.stopped) return stopped_early();
  TokenShard train(shards.train, encoder.vocab, encoder.hash);
  TokenShard validation(shards.validation, encoder.vocab, encoder.hash);
  log_info("{} training and {} validation tokens{}",
           human_count(static_cast<double>(train.tokens())),
           human_count(static_cast<double>(validation.tokens())),
           shards.reused ? ", made by an earlier call" : "");
  warn_of_short_validation(validation, s.sequence_length);
  Model model(cfg);
  model.init(DType::kF32, s.seed, true);
  ParameterCount n = count_parameters(cfg);
  log_info("model: {} blocks of width {}, {} parameters, {} active; {}", cfg.num_hidden_layers,
           cfg.hidden_size, human_count(static_cast<double>(n.total + n.mtp)),
           human_count(static_cast<double>(n.active)), dev->name());

  PretrainContext ctx{.dev = *dev,
                      .model = model,
                      .tokenizer = tokenizer,
                      .tokenizer_json = *tokenizer_json,
                      .train = train,
                      .validation = validation,
                      .sample = {},
                      .report = {}};
  ctx.sample = [&] {
    int64_t context = static_cast<int64_t>(prompt.size()) + kSampleTokens;
    Engine engine(*dev, model, s.trainer.dtype, std::min(context, cfg.max_position_embeddings));
    std::vector<GenerateRequest> r(1);
    r[0].prompt = prompt;
    r[0].max_new_tokens = kSampleTokens;
    r[0].sampling.temperature = 0.8;
    r[0].sampling.seed = s.seed;
    std::vector<int32_t> ids = engine.run(r)[0].tokens;
    return f.sample_prompt + tokenizer.decode(ids, true);
  };
  RunReport report(s.out,
                   sections(f, cfg, train, validation, dev->measure_peak_flops(s.trainer.dtype)));
  ctx.report = [&](int64_t steps) { report.write(steps); };
  auto r = report.watch<PretrainResult>([&] { return pretrain(ctx, s); });
  fmt::print("{}", how_it_ended(r));
  if (r.evaluated)
    fmt::print("; validation {:.4f} nats per token, {:.4f} bits per byte (best {:.4f} nats)",
               r.validation_loss, r.validation_bits_per_byte, r.best);
  fmt::print("\ncheckpoint {}\nreport {}/report.html\n", r.checkpoint, s.out);
  if (r.stopped) fmt::print("the same command resumes it\n");
  return r.stopped ? 130 : 0;
}

// The model and its batches.
void add_size(CLI::App* sub, PretrainFlags& f) {
  PretrainSettings& s = f.settings;
  sub->add_option("-o,--out", s.out, "run folder")->capture_default_str();
  sub->add_option("--preset", f.preset, "nano, micro, mini, small, base")->capture_default_str();
  sub->add_option("--depth", f.depth, "one dial instead of a preset: number of blocks")
      ->check(CLI::Range(2, 32));
  sub->add_option("--config", f.config, "a config.json instead of a preset")
      ->check(CLI::ExistingFile);
  sub->add_option("--seq", f.seq, "sequence length (0: the preset's)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--batch-tokens", f.batch, "tokens per step (0: the preset's)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--micro-batch", s.micro_batch_tokens, "tokens per forward and backward")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

// How long, and the learning rate and batch over the steps.
void add_schedule(CLI::App* sub, PretrainFlags& f) {
  PretrainSettings& s = f.settings;
  sub->add_option("--steps", f.steps, "optimiser steps (0: 20 tokens per active parameter)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--minutes", s.minutes, "as many steps as fit into this time instead")
      ->check(CLI::Range(0.0, kMostMinutes));
  sub->add_option("--lr", f.lr, "peak learning rate (0: the preset's)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--schedule", f.schedule, "v3 (warm-up, constant, cosine) or wsd")
      ->check(CLI::IsMember({"v3", "wsd"}))
      ->capture_default_str();
  sub->add_option("--warmup", f.warmup, "steps of warm-up (default: 2 %)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--final-ratio", s.schedule.final_ratio, "last learning rate / peak")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--stable", s.schedule.stable, "v3: constant until this share of the steps")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--decay-end", s.schedule.decay_end,
                  "v3: the cosine ends at this share of the steps, then constant again")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--wsd-decay", s.schedule.wsd_decay,
                  "wsd: share of the steps, at the end, that decay")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--batch-start", s.schedule.batch_start, "batch ramp: first batch / full batch")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  sub->add_option("--batch-ramp", s.schedule.ramp_share,
                  "share of the steps over which the batch grows")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
}

// The optimiser.
void add_optimizer(CLI::App* sub, PretrainFlags& f) {
  TrainerConfig& t = f.settings.trainer;
  sub->add_option("--optimizer", f.optimizer, "adamw or muon")
      ->check(CLI::IsMember({"adamw", "muon"}))
      ->capture_default_str();
  sub->add_option("--momentum", t.optimizer.momentum, "Muon's (Nesterov)")
      ->check(CLI::Range(0.0, 0.9999))
      ->capture_default_str();
  sub->add_option("--beta1", t.optimizer.beta1, "AdamW: of the gradient's average")
      ->check(CLI::Range(0.0, 0.9999))
      ->capture_default_str();
  sub->add_option("--beta2", t.optimizer.beta2, "AdamW: of its square's")
      ->check(CLI::Range(0.0, 0.99999))
      ->capture_default_str();
  sub->add_option("--eps", t.optimizer.eps, "AdamW: added to the root of the square's average")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--weight-decay", t.optimizer.weight_decay, "on matrices")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--clip", t.optimizer.clip, "largest gradient norm (0: off)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

// What is learned, in which numbers, by which losses.
void add_method(CLI::App* sub, PretrainFlags& f) {
  PretrainSettings& s = f.settings;
  TrainerConfig& t = f.settings.trainer;
  sub->add_option("--dtype", f.dtype, "bf16 or f32 activations")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  sub->add_flag("--fp8", f.fp8, "matrix products in FP8 as V3 (emulated on the CPU)");
  sub->add_flag("--recompute", f.recompute, "recompute each block in the backward");
  sub->add_option("--bias-update", t.bias_update, "speed of the aux-loss-free balancing (0: off)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--balance-alpha", t.balance_alpha, "sequence-wise balance loss (0: off)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_flag("--bias-centred", t.bias_centred, "keep the mean of the selection biases");
  sub->add_option("--mtp", f.mtp, "MTP modules (default: the preset's 1)")->check(CLI::Range(0, 8));
  sub->add_option("--mtp-lambda", s.mtp_lambda, "weight of the MTP loss")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--experts", f.experts, "routed experts (0: a dense model)")
      ->check(CLI::Range(0, 1024));
  sub->add_option("--experts-per-token", f.chosen, "chosen experts")->check(CLI::Range(1, 64));
  sub->add_flag("--dense", f.dense, "the dense model of equal active FLOPs");
  sub->add_option("--ema", s.ema, "decay of an average of the weights, saved as OUT/ema (0: none)")
      ->check(CLI::Range(0.0, 0.99999));
  sub->add_option("--qk-clip", t.qk_clip, "MLA: largest attention score of a head (0: off)")
      ->check(CLI::NonNegativeNumber);
  sub->add_flag("--document-mask", s.document_mask,
                "documents packed into one sequence do not see each other (V3: they do)");
}

// What happens between the steps.
void add_upkeep(CLI::App* sub, PretrainFlags& f) {
  add_upkeep_flags(sub, f.settings);
  sub->add_option("--eval-sequences", f.settings.eval_sequences, "validation sequences (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--sample-prompt", f.sample_prompt, "what samples begin with");
}

}  // namespace

void add_pretrain(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("pretrain", "learn a model from raw text");
  auto f = std::make_shared<PretrainFlags>();
  f->data.add(sub);
  add_size(sub, *f);
  add_schedule(sub, *f);
  add_optimizer(sub, *f);
  add_method(sub, *f);
  add_upkeep(sub, *f);
  f->device.add(sub);
  f->ui.add(sub);
  sub->callback([f, sub, &run] {
    f->preset_given = sub->count("--preset") > 0;
    run = [f] { return pretrain_command(*f); };
  });
}

}  // namespace wels
