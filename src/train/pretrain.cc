#include "train/pretrain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/progress.h"
#include "base/signal.h"
#include "formats/hf_config.h"
#include "formats/json.h"
#include "model/checkpoint.h"
#include "train/ema.h"
#include "train/metrics.h"
#include "train/run_folder.h"
#include "train/tfevents.h"

namespace wels {
namespace {

using nlohmann::json;

constexpr int kMostSkipsInARow = 5;
constexpr int64_t kBatchBytesPerToken = 24;  // id, position and target, while their vectors grow
constexpr int64_t kCalibrationSteps = 4;     // of a run given in minutes; the first is not counted

// Everything that changes the numbers of a run.
json settings_json(const PretrainSettings& s, const ModelConfig& cfg, uint64_t source) {
  const TrainerConfig& t = s.trainer;
  return {{"sequence_length", s.sequence_length},
          {"batch_tokens", s.batch_tokens},
          {"micro_batch_tokens", s.micro_batch_tokens},
          {"schedule", s.schedule.kind == Schedule::Kind::kWsd ? "wsd" : "v3"},
          {"lr", s.schedule.peak},
          {"final_ratio", s.schedule.final_ratio},
          {"warmup", s.schedule.warmup},
          {"stable", s.schedule.stable},
          {"decay_end", s.schedule.decay_end},
          {"wsd_decay", s.schedule.wsd_decay},
          {"batch_start", s.schedule.batch_start},
          {"ramp_share", s.schedule.ramp_share},
          {"minutes", s.minutes},
          {"steps", s.schedule.steps},
          {"optimizer", t.optimizer.muon ? "muon" : "adamw"},
          {"beta1", t.optimizer.beta1},
          {"beta2", t.optimizer.beta2},
          {"eps", t.optimizer.eps},
          {"weight_decay", t.optimizer.weight_decay},
          {"clip", t.optimizer.clip},
          {"momentum", t.optimizer.momentum},
          {"dtype", name(t.dtype)},
          {"fp8", t.fp8},
          {"balance_alpha", t.balance_alpha},
          {"bias_update", t.bias_update},
          {"bias_centred", t.bias_centred},
          {"mtp_lambda", s.mtp_lambda},
          {"ema", s.ema},
          {"qk_clip", t.qk_clip},
          {"document_mask", s.document_mask},
          {"seed", s.seed},
          {"vocab", cfg.vocab_size},
          {"source", fmt::format("{:016x}", source)}};
}

void require_same(const json& then, const json& now, const std::string& run) {
  for (auto& [key, value] : now.items()) {
    if (key == "steps" && now["minutes"].get<double>() > 0)
      continue;  // measured once, kept by the checkpoint
    if (!then.contains(key) || then[key] != value) {
      throw Error(run,
                  fmt::format("was started with {} {}, not {}", key,
                              then.contains(key) ? then[key].dump() : "absent", value.dump()),
                  "give the same settings to resume, or another --out for a new run");
    }
  }
}

// The model of the checkpoint in every field, but for how its weights are stored.
void require_same_model(const std::string& folder, const ModelConfig& cfg, const std::string& run) {
  std::string path = folder + "/config.json";
  json then, now = json::parse(to_hf_config(cfg));
  try {
    then = parse_json(read_file(path), path);
  } catch (const Error& e) {
    throw_damaged_checkpoint(run, e);
  }
  for (const char* storage : {"torch_dtype", "quantization_config"}) now.erase(storage);
  require_same(then, now, run);
}

double flops_per_token(const ModelConfig& cfg) {
  ParameterCount n = count_parameters(cfg);
  return 6.0 * static_cast<double>(n.active - n.embedding +
                                   (cfg.tie_word_embeddings ? n.embedding : 0) + n.mtp_active);
}

int64_t sequences_per_step(const PretrainSettings& s) {
  return std::max<int64_t>(1, s.batch_tokens / s.sequence_length);
}
int64_t sequences_per_micro_batch(const PretrainSettings& s) {
  return std::clamp<int64_t>(s.micro_batch_tokens / s.sequence_length, 1, sequences_per_step(s));
}

std::vector<MicroBatch> step_batch(Loader& loader, int64_t first, int64_t sequences,
                                   int64_t per_micro_batch) {
  std::vector<MicroBatch> out;
  for (int64_t i = 0; i < sequences; ++i) {
    if (i % per_micro_batch == 0) out.emplace_back();
    loader.sequence(first + i, out.back().batch, out.back().targets);
  }
  return out;
}

}  // namespace

void require_memory(const Device& dev, const PretrainSettings& s, const ModelConfig& cfg) {
  int64_t available = memory_available_bytes() + rss_bytes();
  if (s.batch_tokens > available / kBatchBytesPerToken) {
    throw Error(
        "memory",
        fmt::format("a step of {} tokens needs {} for their ids alone, {} are free", s.batch_tokens,
                    human_bytes(static_cast<double>(s.batch_tokens) * kBatchBytesPerToken),
                    human_bytes(static_cast<double>(available))),
        "use a smaller --batch-tokens");
  }
  require_memory(dev, cfg, training_shape(s), available);
}

Evaluation evaluate(Trainer& trainer, const Tokenizer& tokenizer, const TokenShard& shard,
                    int64_t sequence_length, int64_t count, int64_t rows_at_once,
                    bool document_mask) {
  Evaluation e;
  double nats = 0, bytes = 0;
  std::vector<int64_t> windows = validation_windows(shard, sequence_length, count);
  for (size_t i = 0; i < windows.size();) {
    MicroBatch mb;
    while (i < windows.size() &&
           mb.batch.rows() + sequence_length <= std::max(rows_at_once, sequence_length)) {
      append_window(shard, windows[i++], sequence_length, mb.batch, mb.targets, document_mask);
    }
    std::vector<double> logp = trainer.log_probabilities(mb);
    for (size_t r = 0; r < logp.size(); ++r) {
      if (mb.targets[r] < 0) continue;
      ++e.tokens;
      nats -= logp[r];
      bytes += static_cast<double>(
          tokenizer.is_special(mb.targets[r]) ? 0 : tokenizer.token_bytes(mb.targets[r]).size());
    }
  }
  e.loss = nats / static_cast<double>(std::max<int64_t>(e.tokens, 1));
  e.bits_per_byte = nats / std::numbers::ln2 / std::max(bytes, 1.0);
  return e;
}

namespace {

// One run from start or checkpoint to end.
class Run {
 public:
  Run(const PretrainContext& c, PretrainSettings s)
      : c_(c),
        s_(std::move(s)),
        loader_(c.train, {s_.sequence_length, s_.seed, s_.document_mask}),
        trainer_(c.dev, c.model, s_.trainer),
        full_(sequences_per_step(s_)),
        per_micro_batch_(sequences_per_micro_batch(s_)),
        flops_per_token_(flops_per_token(c.model.config())) {
    settings_ = settings_json(s_, c.model.config(), c.train.source_hash());
    make_folder(s_.out + "/checkpoints");
    if (s_.ema > 0) ema_ = std::make_unique<WeightEma>(c.dev, c.model, s_.ema);
    resume();
    metrics_ = std::make_unique<MetricsWriter>(s_.out + "/metrics.jsonl",
                                               state_.step > 0 ? state_.step : -1);
    events_ = std::make_unique<TfEventsWriter>(s_.out, state_.step > 0 ? state_.step : -1);
    peak_flops_ = c.dev.measure_peak_flops(s_.trainer.dtype);
  }

  PretrainResult go() {
    if (s_.minutes > 0 && state_.step == 0 && !calibrated_) calibrate();
    while (state_.step < s_.schedule.steps && !stop_.requested()) one_step();
    if (state_.step > last_saved_ || list_checkpoints(s_.out).empty()) {
      if (!result_evaluated_) validate(nullptr);
      save();
    }
    if (!result_evaluated_) validate(nullptr);
    line_.finish(status());
    if (c_.report) c_.report();
    result_.steps = state_.step;
    result_.tokens = state_.tokens;
    result_.best_validation_loss = state_.best_validation;
    result_.stopped = state_.step < s_.schedule.steps;
    result_.checkpoint = checkpoint_folder(s_.out, last_saved_);
    return result_;
  }

 private:
  void resume() {
    std::optional<RunStart> start = find_run_start(s_.out);
    if (!start) return;
    json then = json::parse(start->settings);
    require_same(then, settings_, s_.out);
    require_same_model(start->folder, c_.model.config(), s_.out);
    try {
      state_ = load_checkpoint(start->folder, c_.model, state_tensors());
      trainer_.optimizer().set_steps(state_.optimizer_steps);
      if (ema_) ema_->set_updates(state_.ema_updates);
    } catch (const Error& e) {
      throw_damaged_checkpoint(s_.out, e);
    }
    s_.schedule.steps = then["steps"].get<int64_t>();
    s_.schedule.warmup = then["warmup"].get<int64_t>();
    calibrated_ = true;
    settings_ = then;
    last_saved_ = state_.step;
    best_step_ = then.value("best_step", int64_t{-1});
    log_info("resuming at step {} of {}", state_.step, s_.schedule.steps);
  }

  // A run given in minutes: measures gradients only, so that no state changes.
  void calibrate() {
    std::vector<MicroBatch> batch = step_batch(loader_, 0, full_, per_micro_batch_);
    Objective objective = pretrain_objective(batch, depths(), s_.mtp_lambda);
    double t0 = 0;
    for (int64_t i = 0; i < kCalibrationSteps && !stop_.requested(); ++i) {
      if (i == 1) t0 = monotonic_seconds();
      trainer_.gradients(batch, objective);
    }
    double per_step = (monotonic_seconds() - t0) / static_cast<double>(kCalibrationSteps - 1);
    s_.schedule.steps = std::max<int64_t>(
        10, static_cast<int64_t>(s_.minutes * 60 / (per_step * 1.06)));  // update, evaluation
    s_.schedule.warmup = std::min(s_.schedule.warmup, s_.schedule.steps / 10);
    settings_["steps"] = s_.schedule.steps;
    log_info("{:.0f} ms a step: {} steps in about {}", per_step * 1e3, s_.schedule.steps,
             human_duration(s_.minutes * 60));
  }

  int depths() const { return static_cast<int>(c_.model.config().num_nextn_predict_layers); }

  void one_step() {
    double t0 = monotonic_seconds();
    int64_t sequences = batch_sequences(s_.schedule, state_.step, full_);
    std::vector<MicroBatch> batch =
        step_batch(loader_, state_.sequences, sequences, per_micro_batch_);
    double lr = learning_rate(s_.schedule, state_.step);
    StepStats stats = trainer_.step(batch, pretrain_objective(batch, depths(), s_.mtp_lambda), lr);
    if (ema_ && !stats.skipped) ema_->update();
    ++state_.step;
    state_.sequences += sequences;
    int64_t tokens = sequences * s_.sequence_length;
    state_.tokens += tokens;
    double seconds = monotonic_seconds() - t0;
    state_.elapsed_s += seconds;
    check_finite(stats);
    seconds_seen_ += seconds;
    tokens_seen_ += tokens;
    result_.tokens_per_s = static_cast<double>(tokens_seen_) / seconds_seen_;
    loss_ = stats.loss[0];
    result_evaluated_ = false;
    StepMetrics m = step_metrics(stats, lr, static_cast<double>(tokens) / seconds, batch);
    bool last = state_.step == s_.schedule.steps;
    if (state_.step % s_.eval_every == 0 || last) validate(&m);
    if (c_.sample && s_.sample_every > 0 && (state_.step % s_.sample_every == 0 || last)) {
      m.add_text(metric::kSample, c_.sample());
    }
    metrics_->write(m);
    events_->write(state_.step, unix_seconds(), m.scalars);
    if (state_.step % s_.save_every == 0 || last) save();
    if (!s_.quiet && line_.due()) line_.update(status());
  }

  void check_finite(const StepStats& stats) {
    if (!stats.skipped) {
      state_.skipped_in_a_row = 0;
      return;
    }
    log_warn("step {}: the loss or a gradient is not finite; the step is skipped", state_.step);
    if (++state_.skipped_in_a_row >= kMostSkipsInARow) {
      throw Error("training", fmt::format("{} steps in a row were not finite", kMostSkipsInARow),
                  "the last checkpoint is good; resume with a lower --lr in another folder");
    }
  }

  StepMetrics step_metrics(const StepStats& st, double lr, double tokens_per_s,
                           const std::vector<MicroBatch>& batch) {
    StepMetrics m;
    m.step = state_.step;
    m.add(metric::kTime, unix_seconds());
    m.add(metric::kLoss, st.total());
    m.add(metric::kMainLoss, st.loss[0]);
    if (st.loss.size() > 1 && s_.mtp_lambda > 0) {
      double mtp = 0;
      for (size_t k = 1; k < st.loss.size(); ++k) mtp += st.loss[k];
      m.add(metric::kMtpLoss, mtp / s_.mtp_lambda);
    }
    double bytes = 0, count = 0;
    for (const MicroBatch& mb : batch) {
      for (int32_t t : mb.targets) {
        if (t < 0) continue;
        bytes += static_cast<double>(
            c_.tokenizer.is_special(t) ? 0 : c_.tokenizer.token_bytes(t).size());
        count += 1;
      }
    }
    m.add(metric::kBitsPerByte, st.loss[0] * count / std::numbers::ln2 / std::max(bytes, 1.0));
    m.add(metric::kBalanceLoss, st.balance_loss);
    m.add(metric::kLr, lr);
    m.add(metric::kGradNorm, st.gradient_norm);
    m.add(metric::kTokensPerS, tokens_per_s);
    m.add(metric::kGflops, tokens_per_s * flops_per_token_ / 1e9);
    if (peak_flops_ > 0)
      m.add(metric::kFractionOfPeak, tokens_per_s * flops_per_token_ / peak_flops_);
    m.add(metric::kRssBytes, static_cast<double>(rss_bytes()));
    m.add(metric::kTokens, static_cast<double>(state_.tokens));
    m.add(metric::kElapsedS, state_.elapsed_s);
    m.add(std::string(metric::kStepTimePrefix) + "forward", st.forward_s * 1e3);
    m.add(std::string(metric::kStepTimePrefix) + "backward", st.backward_s * 1e3);
    m.add(std::string(metric::kStepTimePrefix) + "update", st.update_s * 1e3);
    add_balance(st, m);
    return m;
  }

  // Expert loads in units of the fair share, MaxVio and selection biases, a row per MoE block.
  void add_balance(const StepStats& st, StepMetrics& m) {
    if (st.load.empty()) return;
    std::vector<double> violation;
    MetricTable load{
        static_cast<int64_t>(st.load.size()), static_cast<int64_t>(st.load[0].load.size()), {}},
        bias = load;
    max_violation_ = 0;
    for (const StepStats::LayerLoad& l : st.load) {
      violation.push_back(l.max_violation());
      max_violation_ = std::max(max_violation_, violation.back());
      double total = 0;
      for (int64_t n : l.load) total += static_cast<double>(n);
      for (int64_t n : l.load)
        load.values.push_back(static_cast<double>(n) * static_cast<double>(l.load.size()) /
                              std::max(total, 1.0));
      int64_t main = c_.model.config().num_hidden_layers;
      const BlockWeights& block =
          l.layer < main ? c_.model.weights().blocks[static_cast<size_t>(l.layer)]
                         : c_.model.weights().mtp[static_cast<size_t>(l.layer - main)].block;
      if (block.experts.bias.value.empty()) continue;
      std::vector<float> b(l.load.size());
      c_.dev.download(block.experts.bias.value[0], b.data());
      bias.values.insert(bias.values.end(), b.begin(), b.end());
    }
    m.add(metric::kMaxVio, std::move(violation));
    m.add(metric::kLoad, std::move(load));
    if (!bias.values.empty()) m.add(metric::kBias, std::move(bias));
  }

  void validate(StepMetrics* m) {
    Evaluation e = evaluate(trainer_, c_.tokenizer, c_.validation, s_.sequence_length,
                            s_.eval_sequences, s_.micro_batch_tokens, s_.document_mask);
    result_.validation_loss = e.loss;
    result_.validation_bits_per_byte = e.bits_per_byte;
    result_evaluated_ = true;
    if (m) {
      m->add(metric::kValLoss, e.loss);
      m->add(metric::kValBitsPerByte, e.bits_per_byte);
      if (ema_) {
        ema_->exchange();
        Evaluation average = evaluate(trainer_, c_.tokenizer, c_.validation, s_.sequence_length,
                                      s_.eval_sequences, s_.micro_batch_tokens, s_.document_mask);
        ema_->exchange();
        m->add("val_loss_ema", average.loss);
      }
    }
    if (state_.best_validation < 0 || e.loss < state_.best_validation) {
      state_.best_validation = e.loss;
      best_is_now_ = true;
    }
  }

  void save() {
    if (best_is_now_) best_step_ = state_.step;
    best_is_now_ = false;
    settings_["best_step"] = best_step_;
    state_.settings = settings_.dump();
    state_.optimizer_steps = trainer_.optimizer().steps();
    if (ema_) state_.ema_updates = ema_->updates();
    save_checkpoint(s_.out, c_.model, state_tensors(), state_, c_.tokenizer_json);
    if (ema_ && state_.step >= s_.schedule.steps) save_average();
    last_saved_ = state_.step;
    prune_checkpoints(s_.out, s_.keep, best_step_);
    if (c_.report) c_.report();
  }

  // What a checkpoint holds beside the weights.
  StateTensors state_tensors() {
    StateTensors out = trainer_.optimizer().state();
    if (!ema_) return out;
    StateTensors averages = ema_->state();
    out.insert(out.end(), averages.begin(), averages.end());
    return out;
  }

  // The average as a model of its own, <run>/ema.
  void save_average() {
    std::string tmp = s_.out + "/ema.tmp", folder = s_.out + "/ema";
    std::filesystem::remove_all(tmp);
    make_folder(tmp);
    ema_->exchange();
    save_model(tmp, c_.model, DType::kF32, {{"format", "pt"}});
    ema_->exchange();
    write_file_atomic(tmp + "/tokenizer.json", c_.tokenizer_json);
    std::filesystem::remove_all(folder);
    std::filesystem::rename(tmp, folder);
  }

  std::string status() const {
    double left = static_cast<double>(s_.schedule.steps - state_.step);
    double eta = state_.step > 0 && seconds_seen_ > 0
                     ? left * static_cast<double>(full_ * s_.sequence_length) /
                           std::max(result_.tokens_per_s, 1e-9)
                     : NAN;
    double rate = result_.tokens_per_s * flops_per_token_;
    std::string validation;  // nothing before the first one
    if (result_.validation_loss > 0) {
      validation = fmt::format("  val {:.4f} ({:.3f} bits/byte)", result_.validation_loss,
                               result_.validation_bits_per_byte);
    }
    return fmt::format(
        "step {}/{}  loss {:.4f}{}  {}  {:.0f} GFLOP/s{}  MaxVio {:.2f}  {} left", state_.step,
        s_.schedule.steps, loss_, validation, human_rate(result_.tokens_per_s, "tok"), rate / 1e9,
        peak_flops_ > 0 ? fmt::format(" ({:.0f}% of peak)", 100 * rate / peak_flops_) : "",
        max_violation_, human_duration(eta));
  }

  PretrainContext c_;
  PretrainSettings s_;
  StopSignal stop_;
  Loader loader_;
  Trainer trainer_;
  int64_t full_, per_micro_batch_;
  double flops_per_token_, peak_flops_ = 0;
  json settings_;
  TrainerState state_;
  PretrainResult result_;
  std::unique_ptr<WeightEma> ema_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<TfEventsWriter> events_;
  StatusLine line_{20};
  int64_t last_saved_ = -1, best_step_ = -1, tokens_seen_ = 0;
  double seconds_seen_ = 0, loss_ = 0, max_violation_ = 0;
  bool calibrated_ = false, result_evaluated_ = false, best_is_now_ = false;
};

}  // namespace

TrainingShape training_shape(const PretrainSettings& s) {
  return {.trainer = s.trainer,
          .sequence_length = s.sequence_length,
          .batch_tokens = s.batch_tokens,
          .micro_batch_tokens = s.micro_batch_tokens,
          .mtp_lambda = s.mtp_lambda,
          .average = s.ema > 0,
          .samples = s.sample_every > 0};
}

PretrainResult pretrain(const PretrainContext& ctx, PretrainSettings settings) {
  return Run(ctx, std::move(settings)).go();
}

}  // namespace wels
