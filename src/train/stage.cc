#include "train/stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
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
#include "train/status.h"
#include "train/tfevents.h"

namespace wels {
namespace {

using nlohmann::json;

constexpr int kMostSkipsInARow = 5;
constexpr int64_t kCalibrationSteps = 4;  // of a run given in minutes; the first is not counted

// Everything that changes the numbers of a run.
json settings_json(const StageSettings& s, const ModelConfig& cfg) {
  const TrainerConfig& t = s.trainer;
  return {{"schedule", s.schedule.kind == Schedule::Kind::kWsd ? "wsd" : "v3"},
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
          {"ema", s.ema},
          {"qk_clip", t.qk_clip},
          {"seed", s.seed},
          {"vocab", cfg.vocab_size}};
}

void require_same(const json& then, const json& now, const std::string& run) {
  for (auto& [key, value] : now.items()) {
    if ((key == "steps" || key == "warmup") && now["minutes"].get<double>() > 0)
      continue;  // measured once, kept by the checkpoint
    if (!then.contains(key) || then[key] != value) {
      throw Error(run,
                  fmt::format("was started with {} {}, not {}", key,
                              then.contains(key) ? then[key].dump() : "absent", value.dump()),
                  "give the same settings to resume, or another --out for a new run");
    }
  }
}

// Settings that only some runs have (a chat template, adapters): a run keeps them when it goes on.
void require_none_missing(const json& then, const json& now, const std::string& run) {
  for (auto& [key, value] : then.items()) {
    if (key == "best_step" || key == "counters" || key == "unevaluated" || now.contains(key))
      continue;
    throw Error(run, fmt::format("was started with {} {}, which is not set now", key, value.dump()),
                "give the same settings to resume, or another --out for a new run");
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

// One run from start or checkpoint to end.
class Run {
 public:
  Run(const StageContext& c, const StageSettings& s, Stage& stage)
      : c_(c),
        s_(s),
        stage_(stage),
        trainer_(c.dev, c.model, s_.trainer),
        flops_per_token_(training_flops_per_token(c.model.config())) {
    settings_ = settings_json(s_, c.model.config());
    settings_.update(stage_.settings());
    make_folder(s_.out + "/checkpoints");
    remove_leftovers(s_.out);
    if (s_.ema > 0) ema_ = std::make_unique<WeightEma>(c.dev, c.model, s_.ema);
    resume();
    StepMetrics last;
    bool again = make_up_evaluation(last);
    int64_t kept = state_.step > 0 ? state_.step : -1, whole = again ? kept - 1 : kept;
    metrics_ = std::make_unique<MetricsWriter>(s_.out + "/metrics.jsonl", whole);
    samples_ = std::make_unique<SampleWriter>(s_.out + "/samples.jsonl", kept);
    events_ = std::make_unique<TfEventsWriter>(s_.out, whole);
    if (again) write(last);
    peak_flops_ = c.dev.measure_peak_flops(s_.trainer.dtype);
  }

  StageResult go() {
    if (s_.minutes > 0 && state_.step == 0 && !calibrated_) calibrate();
    if (c_.report) c_.report(s_.schedule.steps);  // from now on the folder says what the run is
    while (state_.step < s_.schedule.steps && !stop_.requested()) one_step();
    bool unsaved = state_.step > last_saved_ || list_checkpoints(s_.out).empty();
    if (!evaluated_) validate(nullptr);
    if (!sound()) throw diverged();
    note_best();
    if (unsaved || best_is_unsaved_) save();
    line_.finish(seconds_seen_ > 0 ? status() : "");  // a run that was over made no step
    if (c_.report) c_.report(s_.schedule.steps);
    return {.steps = state_.step,
            .tokens = state_.tokens,
            .best = state_.best_validation,
            .tokens_per_s = tokens_per_s(),
            .elapsed_s = state_.elapsed_s,
            .stopped = state_.step < s_.schedule.steps || given_up_,
            .evaluated = evaluated_,
            .checkpoint = checkpoint_folder(s_.out, last_saved_)};
  }

 private:
  void resume() {
    std::optional<RunStart> start = find_run_start(s_.out);
    if (!start) return;
    json then = json::parse(start->settings);
    require_same(then, settings_, s_.out);
    require_none_missing(then, settings_, s_.out);
    require_same_model(start->folder, c_.model.config(), s_.out);
    try {
      state_ = load_checkpoint(start->folder, c_.parts, state_tensors());
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
    unevaluated_ = then.value("unevaluated", "");
    restore_counters(then, start->folder);
    if (state_.step > 0 && stage_.steps_left() == 0) s_.schedule.steps = state_.step;
    if (ema_) save_average();
    if (state_.step < s_.schedule.steps)
      log_info("resuming at step {} of {}", state_.step, state_.step + steps_left());
  }

  void restore_counters(const json& then, const std::string& folder) {
    if (!then.contains("counters")) return;
    try {
      stage_.restore(then["counters"]);
    } catch (const json::exception&) {
      throw_damaged_checkpoint(
          s_.out, Error(folder + "/trainer.json", "\"counters\" are not those of this stage"));
    }
  }

  // The evaluation that a signal cut short in the checkpoint's last step. False: there was none, or
  // another signal came. m: that step's metrics, now whole.
  bool make_up_evaluation(StepMetrics& m) {
    if (unevaluated_.empty() || !parse_json_line(unevaluated_, &m)) return false;
    validate(&m);
    note_best();  // the step is saved
    if (evaluated_) unevaluated_.clear();
    return evaluated_;
  }

  // A run given in minutes: measures gradients only, so that no state changes. Throws Interrupted:
  // what was not measured to the end says nothing, and the run has not begun.
  void calibrate() {
    double t0 = 0;
    for (int64_t i = 0; i < kCalibrationSteps && !stop_.requested(); ++i) {
      if (i == 1) t0 = monotonic_seconds();
      stage_.rehearse(trainer_);
    }
    if (stop_.requested()) throw Interrupted();
    double per_step = (monotonic_seconds() - t0) / static_cast<double>(kCalibrationSteps - 1);
    s_.schedule.steps = std::max<int64_t>(
        10, static_cast<int64_t>(s_.minutes * 60 / (per_step * 1.06)));  // update, evaluation
    s_.schedule.warmup = std::min(s_.schedule.warmup, s_.schedule.steps / 10);
    settings_["steps"] = s_.schedule.steps;
    settings_["warmup"] = s_.schedule.warmup;
    log_info("{:.0f} ms a step: {} steps in about {}", per_step * 1e3, s_.schedule.steps,
             human_duration(s_.minutes * 60));
  }

  void one_step() {
    double t0 = monotonic_seconds();
    double lr = learning_rate(s_.schedule, state_.step);
    StepMetrics m;
    m.step = state_.step + 1;
    state_.planned_steps = s_.schedule.steps;
    json before = stage_.counters();
    StageStep done;
    try {
      done = stage_.step(trainer_, state_, lr, m);
    } catch (const Interrupted&) {
      stage_.restore(before);
      given_up_ = true;
      return;
    }
    if (done.collapse) end_collapsed(*done.collapse);
    if (ema_ && !done.stats.skipped && !done.nothing_to_learn) ema_->update();
    ++state_.step;
    state_.sequences += done.sequences;
    state_.tokens += done.tokens;
    double seconds = monotonic_seconds() - t0;
    state_.elapsed_s += seconds;
    check_finite(done.stats);
    seconds_seen_ += seconds;
    tokens_seen_ += done.tokens;
    step_seconds_ = step_seconds_ > 0 ? 0.9 * step_seconds_ + 0.1 * seconds : seconds;
    loss_ = done.loss;
    evaluated_ = false;
    add_metrics(done, lr, seconds, m);
    if (stage_.steps_left() == 0) s_.schedule.steps = state_.step;
    bool last = state_.step == s_.schedule.steps;
    bool saves = state_.step % s_.save_every == 0 || last;
    bool due = state_.step % s_.eval_every == 0 || saves;
    if (due) validate(&m);
    if (s_.sample_every > 0 && (state_.step % s_.sample_every == 0 || last)) sample(m);
    unevaluated_ = due && !evaluated_ ? to_json_line(m) : "";
    write(m);
    samples_->write(state_.step, stage_.rollouts());
    if (saves) save();
    if (!s_.quiet && line_.due()) line_.update(status());
  }

  // What the model writes is only looked at: a failure of it must not cost the run.
  void sample(StepMetrics& m) {
    std::string text;
    try {
      text = stage_.sample();
    } catch (const Interrupted&) {  // the loop ends with this step
      return;
    } catch (const Error& e) {
      log_warn("step {}: no sample: {}", state_.step, e.what());
    }
    if (text.empty()) return;
    m.add_text(metric::kSample, text);
    if (!s_.quiet) terminal::write_line(sample_lines(state_.step, text, terminal::is_tty()));
  }

  void write(const StepMetrics& m) {
    metrics_->write(m);
    events_->write(m.step, unix_seconds(), m.scalars);
  }

  // What was saved since the collapse began is put aside, so that the newest checkpoint is good.
  [[noreturn]] void end_collapsed(const Error& e) {
    // state_.step does not count this step yet: this is before_doubt()'s bound.
    set_aside_checkpoints(s_.out, state_.step - stage_.doubtful_steps());
    throw Error(e.where(), e.fact() + "; " + newest_before(state_.step + 1), e.hint());
  }

  std::string newest_before(int64_t step) const {
    std::vector<int64_t> good = list_checkpoints(s_.out);
    std::erase_if(good, [step](int64_t x) { return x >= step; });
    return good.empty() ? "no checkpoint is from before, only the model it began with"
                        : "the last good checkpoint is " + checkpoint_folder(s_.out, good.back());
  }

  // Whether the model is worth a checkpoint, as far as is known.
  bool sound() const {
    return state_.skipped_in_a_row == 0 && !(evaluated_ && !std::isfinite(validation_));
  }

  Error diverged() const {
    std::string what = fmt::format("the validation of step {} is not finite", state_.step);
    if (int64_t n = state_.skipped_in_a_row; n == 1)
      what = fmt::format("step {}, the last one, is not finite", state_.step);
    else if (n > 1)
      what = fmt::format("{} steps in a row are not finite", n);
    return Error("training", what + "; " + newest_before(state_.step),
                 "start again with a lower --lr in another --out");
  }

  // The newest checkpoint from before a collapse that may have begun; -1: none.
  int64_t before_doubt() const {
    int64_t doubtful = stage_.doubtful_steps(), found = -1;
    if (doubtful == 0) return -1;
    for (int64_t step : list_checkpoints(s_.out)) {
      if (step < state_.step - doubtful) found = step;
    }
    return found;
  }

  void check_finite(const StepStats& stats) {
    if (!stats.skipped) {
      state_.skipped_in_a_row = 0;
      return;
    }
    log_warn("step {}: the loss or a gradient is not finite; the step is skipped", state_.step);
    if (++state_.skipped_in_a_row >= kMostSkipsInARow) throw diverged();
  }

  void add_metrics(const StageStep& done, double lr, double seconds, StepMetrics& m) {
    const StepStats& st = done.stats;
    double rate = static_cast<double>(done.tokens) / seconds;
    m.add(metric::kTime, unix_seconds());
    m.add(metric::kLoss, st.total());
    m.add(metric::kBalanceLoss, st.balance_loss);
    m.add(metric::kLr, lr);
    m.add(metric::kGradNorm, st.gradient_norm);
    m.add(metric::kTokensPerS, rate);
    if (stage_.rate_is_of_training()) {
      m.add(metric::kGflops, rate * flops_per_token_ / 1e9);
      if (peak_flops_ > 0) m.add(metric::kFractionOfPeak, rate * flops_per_token_ / peak_flops_);
    }
    m.add(metric::kRssBytes, static_cast<double>(rss_bytes()));
    m.add(metric::kTokens, static_cast<double>(state_.tokens));
    m.add(metric::kElapsedS, state_.elapsed_s);
    m.add(std::string(metric::kStepTimePrefix) + "forward", st.forward_s * 1e3);
    m.add(std::string(metric::kStepTimePrefix) + "backward", st.backward_s * 1e3);
    m.add(std::string(metric::kStepTimePrefix) + "update", st.update_s * 1e3);
    add_balance(st, m);
  }

  // Expert loads in units of the fair share, MaxVio and selection biases, a row per MoE block.
  void add_balance(const StepStats& st, StepMetrics& m) {
    if (st.load.empty()) return;
    std::vector<double> violation, layers;
    MetricTable load{
        static_cast<int64_t>(st.load.size()), static_cast<int64_t>(st.load[0].load.size()), {}},
        bias = load;
    max_violation_ = 0;
    for (const StepStats::LayerLoad& l : st.load) {
      violation.push_back(l.max_violation());
      layers.push_back(static_cast<double>(l.layer));
      max_violation_ = std::max(max_violation_, violation.back());
      double total = 0;
      for (int64_t n : l.load) total += static_cast<double>(n);
      for (int64_t n : l.load)
        load.values.push_back(static_cast<double>(n) * static_cast<double>(l.load.size()) /
                              std::max(total, 1.0));
      const BlockWeights& block = c_.model.weights().block(l.layer);
      if (block.experts.bias.value.empty()) continue;
      std::vector<float> b(l.load.size());
      c_.dev.download(block.experts.bias.value[0], b.data());
      bias.values.insert(bias.values.end(), b.begin(), b.end());
    }
    m.add(metric::kMaxVio, std::move(violation));
    m.add(metric::kLayers, std::move(layers));
    m.add(metric::kLoad, std::move(load));
    if (!bias.values.empty()) m.add(metric::kBias, std::move(bias));
  }

  // Gives up for a signal: nothing is known then, and nothing is added to m.
  void validate(StepMetrics* m) {
    StepMetrics with = m ? *m : StepMetrics();
    double value = 0;
    try {
      throw_if_stopped();
      value = stage_.validate(trainer_, m ? &with : nullptr, false);
      if (m && ema_) validate_average(with);
    } catch (const Interrupted&) {
      given_up_ = true;
      return;
    }
    evaluated_ = true;
    validation_ = value;
    if (m) *m = std::move(with);
  }

  // Of the steps that are saved, this one included.
  void note_best() {
    if (!evaluated_ || !std::isfinite(validation_)) return;
    if (state_.best_validation >= 0 && validation_ >= state_.best_validation) return;
    state_.best_validation = validation_;
    best_step_ = state_.step;
    best_is_unsaved_ = true;
  }

  void validate_average(StepMetrics& m) {
    ema_->exchange();
    try {
      stage_.validate(trainer_, &m, true);
    } catch (const Interrupted&) {
      ema_->exchange();
      throw;
    }
    ema_->exchange();
  }

  // A model that is not sound takes no good checkpoint's place.
  void save() {
    if (!sound()) {
      log_warn("step {}: not saved: it, or its validation, is not finite", state_.step);
      return;
    }
    note_best();
    best_is_unsaved_ = false;
    settings_["best_step"] = best_step_;
    json counters = stage_.counters();
    if (!counters.empty()) settings_["counters"] = counters;
    settings_.erase("unevaluated");
    if (!unevaluated_.empty()) settings_["unevaluated"] = unevaluated_;
    state_.settings = settings_.dump();
    state_.optimizer_steps = trainer_.optimizer().steps();
    if (ema_) state_.ema_updates = ema_->updates();
    save_checkpoint(s_.out, c_.parts, state_tensors(), state_);
    if (ema_) save_average();
    last_saved_ = state_.step;
    prune_checkpoints(s_.out, s_.keep, {best_step_, before_doubt()});
    if (c_.report) c_.report(s_.schedule.steps);
  }

  // What a checkpoint holds beside the weights.
  StateTensors state_tensors() {
    StateTensors out = trainer_.optimizer().state();
    if (ema_) {
      StateTensors averages = ema_->state();
      out.insert(out.end(), averages.begin(), averages.end());
    }
    StateTensors more = stage_.state();
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }

  // The average as a model of its own, <run>/ema: with every checkpoint, and again from the newest
  // one's state where a run goes on, since a kill may have come between the two.
  void save_average() {
    std::string tmp = s_.out + "/ema.tmp";
    std::error_code ec;
    std::filesystem::remove_all(tmp, ec);
    try {
      write_average(tmp);
    } catch (const Error&) {
      std::filesystem::remove_all(tmp, ec);  // on a full disk its part would be in the way
      throw;
    }
    replace_folder(tmp, s_.out + "/ema");
    sync_folder(s_.out);
  }

  void write_average(const std::string& folder) {
    make_folder(folder);
    ema_->exchange();
    c_.parts.save_model(folder);
    ema_->exchange();
    for (auto& [name, content] : c_.parts.files) write_file_atomic(folder + "/" + name, content);
    sync_folder(folder);
  }

  int64_t steps_left() const {
    int64_t left = stage_.steps_left();
    return left >= 0 ? left : s_.schedule.steps - state_.step;
  }

  double tokens_per_s() const {
    return seconds_seen_ > 0 ? static_cast<double>(tokens_seen_) / seconds_seen_ : 0;
  }

  std::string status() const {
    int64_t left = steps_left();
    RunStatus s{.step = state_.step,
                .steps = state_.step + left,
                .loss = loss_,
                .tokens_per_s = tokens_per_s(),
                .left_s = NAN,
                .max_violation = max_violation_,
                .more = stage_.status()};
    if (step_seconds_ > 0) s.left_s = static_cast<double>(left) * step_seconds_;
    if (stage_.rate_is_of_training()) {
      double flops = s.tokens_per_s * flops_per_token_;
      s.gflops = flops / 1e9;
      if (peak_flops_ > 0) s.fraction_of_peak = flops / peak_flops_;
    }
    return status_line(s);
  }

  StageContext c_;
  StageSettings s_;
  Stage& stage_;
  StopSignal stop_;
  Trainer trainer_;
  double flops_per_token_, peak_flops_ = 0;
  json settings_;
  TrainerState state_;
  std::string unevaluated_;  // metrics of the last step, whose evaluation was given up
  std::unique_ptr<WeightEma> ema_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<SampleWriter> samples_;
  std::unique_ptr<TfEventsWriter> events_;
  StatusLine line_{20};
  int64_t last_saved_ = -1, best_step_ = -1, tokens_seen_ = 0;
  double seconds_seen_ = 0, step_seconds_ = 0, loss_ = 0, max_violation_ = -1;
  double validation_ = 0;  // of state_.step, where evaluated_
  bool calibrated_ = false, evaluated_ = false, best_is_unsaved_ = false;
  bool given_up_ = false;  // a step or an evaluation, for a signal
};

}  // namespace

double training_flops_per_token(const ModelConfig& cfg) {
  ParameterCount n = count_parameters(cfg);
  return 6.0 * static_cast<double>(n.active - n.embedding +
                                   (cfg.tie_word_embeddings ? n.embedding : 0) + n.mtp_active);
}

StageResult run_stage(const StageContext& ctx, const StageSettings& settings, Stage& stage) {
  return Run(ctx, settings, stage).go();
}

}  // namespace wels
