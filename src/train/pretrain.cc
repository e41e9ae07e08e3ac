#include "train/pretrain.h"

#include <fmt/format.h>

#include <algorithm>
#include <numbers>

#include "base/error.h"
#include "base/machine.h"
#include "base/progress.h"
#include "base/signal.h"

namespace wels {
namespace {

constexpr int64_t kBatchBytesPerToken = 24;  // id, position and target, while their vectors grow

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
    throw_if_stopped();
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

class PretrainStage : public Stage {
 public:
  PretrainStage(const PretrainContext& c, const PretrainSettings& s)
      : c_(c),
        s_(s),
        loader_(c.train, {s.sequence_length, s.seed, s.document_mask}),
        full_(sequences_per_step(s)),
        per_micro_batch_(sequences_per_micro_batch(s)) {}

  nlohmann::json settings() const override {
    nlohmann::json out = {{"sequence_length", s_.sequence_length},
                          {"batch_tokens", s_.batch_tokens},
                          {"micro_batch_tokens", s_.micro_batch_tokens},
                          {"mtp_lambda", s_.mtp_lambda},
                          {"document_mask", s_.document_mask},
                          {"source", fmt::format("{:016x}", c_.train.source_hash())}};
    if (!s_.tokenizer.empty()) out["tokenizer"] = s_.tokenizer;
    return out;
  }

  StageStep step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) override {
    StageStep done;
    Schedule schedule = s_.schedule;
    schedule.steps = state.planned_steps;
    done.sequences = batch_sequences(schedule, state.step, full_);
    done.tokens = done.sequences * s_.sequence_length;
    std::vector<MicroBatch> batch =
        step_batch(loader_, state.sequences, done.sequences, per_micro_batch_);
    done.stats = trainer.step(batch, pretrain_objective(batch, depths(), s_.mtp_lambda), lr);
    done.loss = done.stats.loss[0];
    add_losses(done.stats, batch, m);
    return done;
  }

  void rehearse(Trainer& trainer) override {
    if (rehearsal_.empty()) rehearsal_ = step_batch(loader_, 0, full_, per_micro_batch_);
    trainer.gradients(rehearsal_, pretrain_objective(rehearsal_, depths(), s_.mtp_lambda));
  }

  double validate(Trainer& trainer, StepMetrics* m, bool averaged) override {
    Evaluation e =
        evaluate(trainer, c_.tokenizer, c_.validation, s_.sequence_length, s_.eval_sequences,
                 per_micro_batch_ * s_.sequence_length, s_.document_mask);
    if (averaged) {
      if (m) m->add("val_loss_ema", e.loss);
      return e.loss;
    }
    last_ = e;
    if (m) {
      m->add(metric::kValLoss, e.loss);
      m->add(metric::kValBitsPerByte, e.bits_per_byte);
    }
    return e.loss;
  }

  std::string sample() override { return c_.sample ? c_.sample() : ""; }

  std::string status() const override {
    if (last_.tokens == 0) return {};  // nothing before the first evaluation
    return fmt::format("  val {:.4f} ({:.3f} bits/byte)", last_.loss, last_.bits_per_byte);
  }

  const Evaluation& last_evaluation() const { return last_; }

 private:
  int depths() const { return static_cast<int>(c_.model.config().num_nextn_predict_layers); }

  void add_losses(const StepStats& st, const std::vector<MicroBatch>& batch, StepMetrics& m) const {
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
  }

  const PretrainContext& c_;
  const PretrainSettings& s_;
  Loader loader_;
  int64_t full_, per_micro_batch_;
  std::vector<MicroBatch> rehearsal_;
  Evaluation last_;
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

PretrainResult pretrain(const PretrainContext& ctx, const PretrainSettings& settings) {
  PretrainStage stage(ctx, settings);
  StageContext run{.dev = ctx.dev,
                   .model = ctx.model,
                   .parts = whole_model(ctx.model, {{"tokenizer.json", ctx.tokenizer_json}}),
                   .report = ctx.report};
  PretrainResult result;
  static_cast<StageResult&>(result) = run_stage(run, settings, stage);
  result.validation_loss = stage.last_evaluation().loss;
  result.validation_bits_per_byte = stage.last_evaluation().bits_per_byte;
  return result;
}

}  // namespace wels
