#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "base/signal.h"
#include "train/qk_clip.h"

namespace wels {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

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
  double t0 = now_s();
  Tape tape(dev_, pool_);
  Ctx ctx{.dev = dev_,
          .pool = pool_,
          .tape = &tape,
          .dtype = config_.dtype,
          .fp8 = config_.fp8,
          .recompute = config_.recompute};
  ForwardOptions options;
  options.balance_factor = static_cast<float>(config_.balance_alpha / sequences);
  ForwardRecord record;
  Var stream;
  Var h = model_.hidden(ctx, mb.batch, options, &record, &stream);
  size_t main_layers = record.routed.size();

  struct Head {
    Var logp;
    std::vector<int32_t> rows;
    std::vector<double> dlogp;
  };
  std::vector<Head> heads;
  auto predict = [&](const Var& hidden, std::vector<int32_t> rows, std::span<const int32_t> ids) {
    Var known = known_gradient(ctx, objective, mb, static_cast<int>(heads.size()), rows);
    Var target = ctx.make_ids(ids.data(), static_cast<int64_t>(ids.size()));
    Var kept = heads.empty() ? kept_tokens(ctx, mb) : Var();  // of the next token alone
    Var logp = token_logp(ctx, hidden, model_.head(), target, known, kept, config_.temperature);
    heads.push_back({logp, std::move(rows), {}});
  };
  std::vector<int32_t> all(mb.targets.size());
  std::iota(all.begin(), all.end(), 0);
  predict(h, all, mb.targets);
  Lesson lesson;
  Var kl;
  if (objective.lesson) {
    lesson = objective.lesson(mb);
    kl = token_kl(ctx, h, model_.head(), lesson.teacher, lesson.kl);
  }

  // MTP: the balance loss is the main model's; its router's load counts for the selection bias.
  Var previous = model_.config().mtp_hidden_after_norm ? h : stream;
  std::vector<int32_t> previous_rows = std::move(all);
  ForwardOptions mtp_options;
  int64_t modules = model_.config().num_nextn_predict_layers;
  if (objective.mtp_modules >= 0) modules = std::min<int64_t>(modules, objective.mtp_modules);
  for (int64_t k = 0; k < modules; ++k) {
    Model::MtpOut out = model_.mtp(ctx, k, previous, previous_rows, mb.batch, mtp_options, &record);
    if (out.rows.empty()) break;
    predict(out.hidden, out.rows, depth_targets(mb, out.rows, static_cast<int>(k) + 1));
    previous = model_.config().mtp_hidden_after_norm ? out.hidden : out.stream;
    previous_rows = std::move(out.rows);
  }
  for (size_t k = 0; k < heads.size(); ++k) {
    std::vector<double> logp = to_host(dev_, heads[k].logp.t), dlogp(logp.size(), 0.0);
    double loss = objective.loss(mb, static_cast<int>(k), heads[k].rows, logp, dlogp);
    if (stats.loss.size() <= k) stats.loss.push_back(0);
    stats.loss[k] += loss;
    heads[k].dlogp = std::move(dlogp);
  }
  std::vector<double> dkl(mb.targets.size(), 0.0);
  if (objective.lesson)
    stats.kl_loss +=
        objective.kl_loss(mb, to_host(dev_, heads[0].logp.t), to_host(dev_, kl.t), dkl);
  std::vector<AttendSegment> segments;
  for (const Segment& s : mb.batch.segments)
    segments.push_back({s.row_begin, s.rows, s.row_begin, s.rows});
  for (size_t i = 0; i < record.routed.size(); ++i) {
    const Routed& r = record.routed[i].routed;
    if (i < main_layers && config_.balance_alpha != 0) {
      RouteParams p = route_params(model_.config());
      stats.balance_loss +=
          config_.balance_alpha / sequences * dev_.balance_loss(r.logits.t, segments, p);
    }
    std::vector<int32_t> load(static_cast<size_t>(r.load.t.cols));
    dev_.download(r.load.t, load.data());
    if (stats.load.size() <= i)
      stats.load.push_back({record.routed[i].layer, std::vector<int64_t>(load.size())});
    for (size_t e = 0; e < load.size(); ++e) stats.load[i].load[e] += load[e];
  }
  record.routed.clear();  // lets the pool have the routers' memory as the backward goes
  stats.activation_bytes = std::max(stats.activation_bytes, pool_.bytes_now());
  double t1 = now_s();
  if (objective.lesson) {
    GradOut g = tape.grad_out(kl);
    from_host(dev_, dkl, g.t);
  }
  for (const Head& head : heads) {
    // Distillation alone: the vocabulary need not be walked for zeros.
    if (objective.lesson && all_zero(head.dlogp)) continue;
    GradOut g = tape.grad_out(head.logp);
    from_host(dev_, head.dlogp, g.t);
  }
  h = stream = previous = Var();
  for (Head& head : heads) head.logp.memory.reset();
  tape.backward();
  stats.forward_s += t1 - t0;
  stats.backward_s += now_s() - t1;
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
  double t0 = now_s();
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
  stats.update_s = now_s() - t0;
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
