#include "train/sft_stage.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/signal.h"
#include "base/threads.h"

namespace wels {
namespace {

constexpr int64_t kLogitBytes = 32 << 20;  // of an evaluation's logits at a time

int64_t learned_in(const MicroBatch& mb) {
  return std::count_if(mb.targets.begin(), mb.targets.end(), [](int32_t t) { return t >= 0; });
}

// The rows that have a target, and how many of their targets are the most probable token.
struct Scored {
  double nats = 0;
  int64_t right = 0;
};

Scored score(Device& dev, Model& model, Pool& pool, const TrainerConfig& config,
             const MicroBatch& mb) {
  Ctx ctx{.dev = dev,
          .pool = pool,
          .tape = nullptr,
          .dtype = config.dtype,
          .fp8 = config.fp8,
          .recompute = false};
  std::vector<int32_t> rows, targets;
  for (size_t i = 0; i < mb.targets.size(); ++i) {
    if (mb.targets[i] < 0) continue;
    rows.push_back(static_cast<int32_t>(i));
    targets.push_back(mb.targets[i]);
  }
  Scored out;
  auto n = static_cast<int64_t>(rows.size()), vocab = model.config().vocab_size;
  if (n == 0) return out;
  Var h = select_rows(ctx, model.hidden(ctx, mb.batch, {}), rows);
  Var logp = token_logp(ctx, h, model.head(), ctx.make_ids(targets.data(), n));
  for (double x : to_host(dev, logp.t)) out.nats -= x;
  int64_t at_once = std::max<int64_t>(1, kLogitBytes / (vocab * 4));
  for (int64_t begin = 0; begin < n; begin += at_once) {
    Var part = h;
    part.t = h.t.row_range(begin, std::min(at_once, n - begin));
    Var logits = model.logits(ctx, part);
    std::vector<double> z = to_host(dev, logits.t);
    for (int64_t r = 0; r < part.t.rows; ++r) {
      const double* row = z.data() + r * vocab;
      if (std::max_element(row, row + vocab) - row == targets[static_cast<size_t>(begin + r)])
        ++out.right;
    }
  }
  return out;
}

std::vector<MicroBatch> pack(const std::vector<TrainingTokens>& examples, const SftSettings& s) {
  std::vector<int64_t> rows;
  for (const TrainingTokens& e : examples) rows.push_back(e.size() - 1);
  std::vector<MicroBatch> out;
  for (const auto& group : best_fit(rows, std::max(s.micro_batch_tokens, s.longest))) {
    out.emplace_back();
    for (int64_t i : group)
      append_example(examples[static_cast<size_t>(i)], out.back().batch, out.back().targets);
  }
  return out;
}

}  // namespace

std::vector<MicroBatch> example_batch(const ExampleSource& source, uint64_t seed, int64_t first,
                                      int64_t count, const SftSettings& s) {
  std::vector<TrainingTokens> examples(static_cast<size_t>(count));
  parallel_tasks(count, [&](int64_t i) {
    TrainingTokens& e = examples[static_cast<size_t>(i)];
    e = source.example(drawn_example(first + i, source.size(), seed));
    if (e.size() > s.longest) {
      throw Error(
          "--seq",
          fmt::format("an example has {} tokens, at most {} are allowed", e.size(), s.longest),
          "use a larger --seq, or an easier level");
    }
  });
  return pack(examples, s);
}

AnswerEvaluation evaluate_answers(Device& dev, Model& model, Pool& pool,
                                  const ExampleSource& source, int64_t count,
                                  const SftSettings& s) {
  int64_t all = source.size(), n = all >= 0 && (count == 0 || count > all) ? all : count;
  CHECK(n > 0 || all >= 0);
  std::vector<TrainingTokens> examples(static_cast<size_t>(n));
  parallel_tasks(n, [&](int64_t i) {
    // Spread evenly over a source that has an end.
    examples[static_cast<size_t>(i)] = source.example(all > 0 ? i * all / n : i);
  });
  AnswerEvaluation e;
  Scored sum;
  for (const MicroBatch& mb : pack(examples, s)) {
    throw_if_stopped();
    Scored part = score(dev, model, pool, s.trainer, mb);
    sum.nats += part.nats;
    sum.right += part.right;
    e.tokens += learned_in(mb);
  }
  double tokens = static_cast<double>(std::max<int64_t>(e.tokens, 1));
  e.loss = sum.nats / tokens;
  e.accuracy = static_cast<double>(sum.right) / tokens;
  return e;
}

SftStage::SftStage(Device& dev, Model& model, const ExampleSource& train,
                   const ExampleSource& held_out, const SftSettings& settings,
                   std::function<std::string()> sample)
    : dev_(dev),
      model_(model),
      train_(train),
      held_out_(held_out),
      s_(settings),
      sample_(std::move(sample)) {}

nlohmann::json SftStage::settings() const {
  nlohmann::json out = {{"stage", "sft"},
                        {"batch", s_.batch},
                        {"longest", s_.longest},
                        {"micro_batch_tokens", s_.micro_batch_tokens},
                        {"mtp_lambda", s_.mtp_lambda},
                        {"source", fmt::format("{:016x}", train_.hash())}};
  out.update(s_.model);
  return out;
}

Objective SftStage::objective(std::span<const MicroBatch> batch) {
  return pretrain_objective(batch, static_cast<int>(model_.config().num_nextn_predict_layers),
                            s_.mtp_lambda);
}

StageStep SftStage::step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) {
  StageStep done;
  done.sequences = s_.batch;
  std::vector<MicroBatch> batch = example_batch(train_, s_.seed, state.sequences, s_.batch, s_);
  int64_t learned = 0;
  for (const MicroBatch& mb : batch) {
    done.tokens += mb.batch.rows();
    learned += learned_in(mb);
  }
  done.stats = trainer.step(batch, objective(batch), lr);
  done.loss = training_loss_ = done.stats.loss[0] / cross_entropy_weight();
  m.add(metric::kMainLoss, done.loss);
  if (done.stats.loss.size() > 1 && s_.mtp_lambda > 0) {
    double mtp = 0;
    for (size_t k = 1; k < done.stats.loss.size(); ++k) mtp += done.stats.loss[k];
    m.add(metric::kMtpLoss, mtp / s_.mtp_lambda);
  }
  m.add("learned_tokens", static_cast<double>(learned));
  if (train_.size() > 0) {
    m.add("epoch",
          static_cast<double>(state.sequences + s_.batch) / static_cast<double>(train_.size()));
  }
  return done;
}

double SftStage::validate(Trainer& trainer, StepMetrics* m, bool averaged) {
  if (held_out_.size() == 0) return training_loss_;
  AnswerEvaluation e =
      evaluate_answers(dev_, model_, trainer.pool(), held_out_, s_.eval_examples, s_);
  if (averaged) {
    if (m) m->add("val_loss_ema", e.loss);
    return e.loss;
  }
  last_ = e;
  if (m) {
    m->add(metric::kValLoss, e.loss);
    m->add("val_token_accuracy", e.accuracy);
  }
  return e.loss;
}

std::string SftStage::status() const {
  if (last_.tokens == 0) return {};  // nothing before the first evaluation
  return fmt::format("  val {:.4f}, {:.1f}% of tokens", last_.loss, 100 * last_.accuracy);
}

void SftStage::rehearse(Trainer& trainer) {
  if (rehearsal_.empty()) rehearsal_ = example_batch(train_, s_.seed, 0, s_.batch, s_);
  trainer.gradients(rehearsal_, objective(rehearsal_));
}

}  // namespace wels
