#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/progress.h"
#include "base/signal.h"
#include "model/block.h"
#include "train/qk_clip.h"

namespace wels {
namespace {

void from_host(Device& dev, const std::vector<double>& v, Tensor t) {
  if (t.dtype == DType::kF64) {
    dev.upload(v.data(), t);
  } else {
    std::vector<float> f(v.begin(), v.end());
    dev.upload(f.data(), t);
  }
}

// d loss / d logp before the forward, [n, 1]; empty if the objective does not know it.
Var known_gradient(Ctx& ctx, const Objective& objective, const MicroBatch& mb, int depth,
                   std::span<const int32_t> rows) {
  if (!objective.known_dlogp) return {};
  std::vector<double> dlogp(rows.size(), 0.0);
  objective.known_dlogp(mb, depth, rows, dlogp);
  Var known = ctx.make_aux(ctx.stat_dtype(), static_cast<int64_t>(rows.size()), 1);
  from_host(ctx.dev, dlogp, known.t);
  return known;
}

// The tokens that may come in the targets' places; empty: all.
Var kept_tokens(Ctx& ctx, const MicroBatch& mb) {
  if (mb.kept.empty()) return {};
  auto rows = static_cast<int64_t>(mb.targets.size()), all = static_cast<int64_t>(mb.kept.size());
  Var kept = ctx.make_aux(DType::kI32, rows, all / rows);
  ctx.dev.upload(mb.kept.data(), kept.t);
  return kept;
}

bool all_zero(const std::vector<double>& v) {
  return std::all_of(v.begin(), v.end(), [](double x) { return x == 0; });
}

// Targets of MTP depth k (1-based): row i predicts what row i + k of its segment has to predict.
std::vector<int32_t> depth_targets(const MicroBatch& mb, std::span<const int32_t> rows, int depth) {
  std::vector<int32_t> out;
  for (int32_t r : rows) out.push_back(mb.targets[static_cast<size_t>(r + depth)]);
  return out;
}

// One micro-batch through the model and back (docs/tour_gradient.md); its functions are called in
// the order in which they are written.
class MicroBatchPass {
 public:
  // sequences: of the whole step, over which the balance loss is a mean.
  MicroBatchPass(Device& dev, Pool& pool, Model& model, const TrainerConfig& config,
                 const MicroBatch& mb, const Objective& objective, double sequences)
      : dev_(dev),
        model_(model),
        config_(config),
        mb_(mb),
        objective_(objective),
        balance_factor_(config.balance_alpha / sequences),
        tape_(dev, pool),
        ctx_{.dev = dev,
             .pool = pool,
             .tape = &tape_,
             .dtype = config.dtype,
             .fp8 = config.fp8,
             .recompute = config.recompute} {
    options_.balance_factor = static_cast<float>(balance_factor_);
  }

  // Log-probabilities of the targets at every depth. What is only named here (the hidden states and
  // streams) belongs to the tape alone afterwards: its backward gives each buffer back to the pool
  // as soon as the last reader is gone, which a name that lives on would prevent.
  void forward() {
    Var stream, h = model_.hidden(ctx_, mb_.batch, options_, &record_, &stream);
    main_routers_ = record_.routed.size();
    std::vector<int32_t> rows(mb_.targets.size());
    std::iota(rows.begin(), rows.end(), 0);
    predict(h, rows, mb_.targets);
    if (objective_.lesson) {
      lesson_ = objective_.lesson(mb_);
      kl_ = token_kl(ctx_, h, model_.head(), lesson_.teacher, lesson_.kl);
    }
    forward_mtp(model_.config().mtp_hidden_after_norm ? h : stream, std::move(rows));
  }

  // The objective's values, and what it gives as gradients of log-probabilities.
  void losses(StepStats& stats) {
    for (size_t k = 0; k < heads_.size(); ++k) {
      Head& head = heads_[k];
      std::vector<double> logp = to_host(dev_, head.logp.t);
      head.dlogp.assign(logp.size(), 0.0);
      double loss = objective_.loss(mb_, static_cast<int>(k), head.rows, logp, head.dlogp);
      if (stats.loss.size() <= k) stats.loss.push_back(0);
      stats.loss[k] += loss;
    }
    if (!objective_.lesson) return;
    dkl_.assign(mb_.targets.size(), 0.0);
    stats.kl_loss +=
        objective_.kl_loss(mb_, to_host(dev_, heads_[0].logp.t), to_host(dev_, kl_.t), dkl_);
  }

  // Loads of all routers, MTP's too; the balance loss is of the main model's alone. Lets the pool
  // have the routers' memory as the backward goes.
  void routing_statistics(StepStats& stats) {
    std::vector<AttendSegment> segments = own_segments(mb_.batch);
    RouteParams params = route_params(model_.config());
    for (size_t i = 0; i < record_.routed.size(); ++i) {
      const Routed& r = record_.routed[i].routed;
      if (i < main_routers_ && config_.balance_alpha != 0)
        stats.balance_loss += balance_factor_ * dev_.balance_loss(r.logits.t, segments, params);
      std::vector<int32_t> load(static_cast<size_t>(r.load.t.cols));
      dev_.download(r.load.t, load.data());
      if (stats.load.size() <= i)
        stats.load.push_back({record_.routed[i].layer, std::vector<int64_t>(load.size())});
      for (size_t e = 0; e < load.size(); ++e) stats.load[i].load[e] += load[e];
    }
    record_.routed.clear();
  }

  // Where the backward begins: the objective's gradients, on the tape.
  void seed_gradients() {
    if (objective_.lesson) from_host(dev_, dkl_, tape_.grad_out(kl_).t);
    for (Head& head : heads_) {
      // Distillation alone: the vocabulary need not be walked for zeros.
      if (!(objective_.lesson && all_zero(head.dlogp)))
        from_host(dev_, head.dlogp, tape_.grad_out(head.logp).t);
      head.logp = Var();  // the tape's alone, as all else
    }
  }

  // Everything recorded, newest first; gradients of the weights are in Weight::grad then.
  void backward() { tape_.backward(); }

 private:
  // A prediction depth (0: next token, k: MTP module k-1).
  struct Head {
    Var logp;                   // [m, 1]
    std::vector<int32_t> rows;  // [m] of the micro-batch
    std::vector<double> dlogp;  // [m]
  };

  void predict(const Var& hidden, std::vector<int32_t> rows, std::span<const int32_t> targets) {
    bool next_token = heads_.empty();
    Var known = known_gradient(ctx_, objective_, mb_, static_cast<int>(heads_.size()), rows);
    Var target = ctx_.make_ids(targets.data(), static_cast<int64_t>(targets.size()));
    Var kept = next_token ? kept_tokens(ctx_, mb_) : Var();
    Var logp = token_logp(ctx_, hidden, model_.head(), target, known, kept, config_.temperature);
    heads_.push_back({logp, std::move(rows), {}});
  }

  // The further depths, each from the one before (V3 eq. 21-23). No balance loss: it is the main
  // model's; the load of MTP's router counts for its selection bias.
  void forward_mtp(Var previous, std::vector<int32_t> previous_rows) {
    int64_t modules = model_.config().num_nextn_predict_layers;
    if (objective_.mtp_modules >= 0) modules = std::min<int64_t>(modules, objective_.mtp_modules);
    for (int64_t k = 0; k < modules; ++k) {
      Model::MtpOut out =
          model_.mtp(ctx_, k, previous, previous_rows, mb_.batch, mtp_options_, &record_);
      if (out.rows.empty()) return;
      predict(out.hidden, out.rows, depth_targets(mb_, out.rows, static_cast<int>(k) + 1));
      previous = model_.config().mtp_hidden_after_norm ? out.hidden : out.stream;
      previous_rows = std::move(out.rows);
    }
  }

  Device& dev_;
  Model& model_;
  const TrainerConfig& config_;
  const MicroBatch& mb_;
  const Objective& objective_;
  double balance_factor_;  // α of the sequence-wise balance loss / sequences
  Tape tape_;
  Ctx ctx_;
  ForwardOptions options_, mtp_options_;  // blocks that the backward runs again read them
  std::vector<Head> heads_;               // by depth
  Lesson lesson_;                         // its memory is needed until the backward is over
  Var kl_;                                // [n, 1]; empty without a lesson
  std::vector<double> dkl_;               // [n]
  ForwardRecord record_;
  size_t main_routers_ = 0;  // of record_.routed; those after them are MTP's
};

}  // namespace

std::vector<double> to_host(Device& dev, const Tensor& t) {
  std::vector<double> out(static_cast<size_t>(t.size()));
  if (t.dtype == DType::kF64) {
    dev.download(t, out.data());
  } else {
    std::vector<float> f(out.size());
    dev.download(t, f.data());
    std::copy(f.begin(), f.end(), out.begin());
  }
  return out;
}

double StepStats::LayerLoad::max_violation() const {
  double total = static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0}));
  if (total == 0) return 0;
  double largest = static_cast<double>(*std::max_element(load.begin(), load.end()));
  return largest * static_cast<double>(load.size()) / total - 1;
}

Trainer::Trainer(Device& dev, Model& model, TrainerConfig config)
    : dev_(dev),
      model_(model),
      config_(config),
      pool_(device_pool(dev)),
      optimizer_(dev, model, config.optimizer) {}

void Trainer::one_micro_batch(const MicroBatch& mb, double sequences, const Objective& objective,
                              StepStats& stats) {
  double t0 = monotonic_seconds();
  MicroBatchPass pass(dev_, pool_, model_, config_, mb, objective, sequences);
  pass.forward();
  pass.losses(stats);
  pass.routing_statistics(stats);
  stats.activation_bytes = std::max(stats.activation_bytes, pool_.bytes_now());
  double t1 = monotonic_seconds();
  pass.seed_gradients();
  pass.backward();
  stats.forward_s += t1 - t0;
  stats.backward_s += monotonic_seconds() - t1;
}

StepStats Trainer::gradients(std::span<const MicroBatch> batch, const Objective& objective,
                             bool to_its_end) {
  StepStats stats;
  model_.clear_gradients();
  double sequences = 0;
  for (const MicroBatch& mb : batch) sequences += static_cast<double>(mb.batch.segments.size());
  for (const MicroBatch& mb : batch) {
    if (!to_its_end) throw_if_stopped();
    one_micro_batch(mb, sequences, objective, stats);
  }
  stats.gradient_norm = optimizer_.gradient_norm();
  return stats;
}

StepStats Trainer::step(std::span<const MicroBatch> batch, const Objective& objective, double lr,
                        bool to_its_end) {
  StepStats stats = gradients(batch, objective, to_its_end);
  double t0 = monotonic_seconds();
  if (!std::isfinite(stats.gradient_norm) || !std::isfinite(stats.total())) {
    stats.skipped = true;
    return stats;
  }
  stats.clip = clip_coefficient(stats.gradient_norm, config_.optimizer.clip);
  optimizer_.step(lr, stats.clip);
  update_router_bias(stats);
  if (config_.qk_clip > 0 && model_.config().is_mla()) {
    qk_clip(dev_, model_, largest_scores(batch), config_.qk_clip);
  }
  stats.update_s = monotonic_seconds() - t0;
  return stats;
}

// max_attention_scores over a whole step.
std::vector<std::vector<double>> Trainer::largest_scores(std::span<const MicroBatch> batch) {
  std::vector<std::vector<double>> out;
  for (const MicroBatch& mb : batch) {
    auto more = max_attention_scores(dev_, pool_, model_, mb.batch, config_.dtype);
    if (out.empty()) out = more;
    for (size_t layer = 0; layer < more.size(); ++layer) {
      for (size_t h = 0; h < more[layer].size(); ++h)
        out[layer][h] = std::max(out[layer][h], more[layer][h]);
    }
  }
  return out;
}

// b_e += γ · sign(mean load - load_e), over the whole batch (Wang et al. 2024, arXiv 2408.15664; V3
// §2.1.2). sign(0) = 0.
void Trainer::update_router_bias(const StepStats& stats) {
  if (config_.bias_update == 0 || !model_.config().has_router_bias()) return;
  for (const StepStats::LayerLoad& l : stats.load) {
    BlockWeights& block = model_.weights().block(l.layer);
    double mean = static_cast<double>(std::accumulate(l.load.begin(), l.load.end(), int64_t{0})) /
                  static_cast<double>(l.load.size());
    std::vector<double> change(l.load.size());
    for (size_t e = 0; e < change.size(); ++e) {
      double gap = mean - static_cast<double>(l.load[e]);
      change[e] = config_.bias_update * (gap > 0 ? 1.0 : gap < 0 ? -1.0 : 0.0);
    }
    double centre = config_.bias_centred ? std::accumulate(change.begin(), change.end(), 0.0) /
                                               static_cast<double>(change.size())
                                         : 0.0;
    Weight& bias = block.experts.bias;
    std::vector<float> b(change.size());
    dev_.download(bias.value[0], b.data());
    for (size_t e = 0; e < b.size(); ++e) b[e] = static_cast<float>(b[e] + change[e] - centre);
    dev_.upload(b.data(), bias.value[0]);
    ++bias.version;
  }
}

std::vector<double> Trainer::log_probabilities(const MicroBatch& mb) {
  return wels::log_probabilities(dev_, pool_, model_, config_, mb);
}

std::vector<double> log_probabilities(Device& dev, Pool& pool, Model& model,
                                      const TrainerConfig& config, const MicroBatch& mb) {
  Ctx ctx{.dev = dev,
          .pool = pool,
          .tape = nullptr,
          .dtype = config.dtype,
          .fp8 = config.fp8,
          .recompute = false};
  Var h = model.hidden(ctx, mb.batch, {});
  Var target = ctx.make_ids(mb.targets.data(), static_cast<int64_t>(mb.targets.size()));
  Var logp = token_logp(ctx, h, model.head(), target, {}, kept_tokens(ctx, mb), config.temperature);
  return to_host(dev, logp.t);
}

Objective pretrain_objective(std::span<const MicroBatch> batch, int mtp_depths, double mtp_lambda) {
  // Predictions of depth k over the whole step: a target k rows further in the same segment.
  std::vector<double> count(static_cast<size_t>(mtp_depths) + 1);
  for (const MicroBatch& mb : batch) {
    for (const Segment& s : mb.batch.segments) {
      for (int64_t i = 0; i < s.rows; ++i) {
        if (mb.targets[static_cast<size_t>(s.row_begin + i)] < 0) continue;
        for (int64_t k = 0; k <= std::min<int64_t>(i, mtp_depths); ++k)
          count[static_cast<size_t>(k)] += 1;
      }
    }
  }
  std::vector<double> weight(count.size());
  for (size_t k = 0; k < count.size(); ++k) {
    double share = k == 0 ? 1.0 : mtp_lambda / static_cast<double>(mtp_depths);
    weight[k] = count[k] > 0 ? share / count[k] : 0.0;
  }
  auto known = [weight](const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                        std::span<double> dlogp) {
    for (size_t i = 0; i < rows.size(); ++i) {
      if (mb.targets[static_cast<size_t>(rows[i] + depth)] >= 0)
        dlogp[i] = -weight[static_cast<size_t>(depth)];
    }
  };
  auto loss = [known](const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                      std::span<const double> logp, std::span<double> dlogp) {
    known(mb, depth, rows, dlogp);
    return std::inner_product(dlogp.begin(), dlogp.end(), logp.begin(), 0.0);
  };
  return {loss, known};
}

}  // namespace wels
