#include "engine/divergence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"

namespace wels {
namespace {

Ctx context(const Divergence::Side& side, Pool& pool) {
  return {.dev = side.dev, .pool = pool, .tape = nullptr, .dtype = side.dtype};
}

// The value that a share of the sorted values is not above.
double quantile(std::vector<float>& values, double share) {
  size_t at = static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return static_cast<double>(values[at]);
}

}  // namespace

LogitDivergence compare_logits(const float* reference, const float* model, int64_t v,
                               int32_t target) {
  const float* top_p = std::max_element(reference, reference + v);
  const float* top_q = std::max_element(model, model + v);
  double sum_p = 0, sum_q = 0, weighted = 0;
  for (int64_t i = 0; i < v; ++i) {
    double p = static_cast<double>(std::exp(reference[i] - *top_p));
    sum_p += p;
    sum_q += static_cast<double>(std::exp(model[i] - *top_q));
    weighted += p * (static_cast<double>(reference[i]) - static_cast<double>(model[i]));
  }
  double log_p = std::log(sum_p) + static_cast<double>(*top_p);
  double log_q = std::log(sum_q) + static_cast<double>(*top_q);
  LogitDivergence d;
  d.kl = weighted / sum_p + (log_q - log_p);
  if (d.kl < 0) d.kl = 0;  // rounding
  d.reference_logp = static_cast<double>(reference[target]) - log_p;
  d.logp = static_cast<double>(model[target]) - log_q;
  d.same_top = top_p - reference == top_q - model;
  return d;
}

TokenMean Divergence::Sum::mean(int64_t n) const {
  double count = static_cast<double>(n), mean = sum / count;
  double variance = n > 1 ? std::max((squares - sum * mean) / (count - 1), 0.0) : 0.0;
  return {mean, std::sqrt(variance / count)};
}

Divergence::Divergence(const Side& reference, const Side& model, bool with_kl)
    : reference_{reference, device_pool(reference.dev)},
      model_{model, device_pool(model.dev)},
      with_kl_(with_kl) {
  CHECK(reference.model.config().vocab_size == model.model.config().vocab_size);
}

Var Divergence::hidden(Half& half, const Batch& batch) {
  Ctx ctx = context(half.side, half.pool);
  ForwardOptions options;
  std::optional<KvCache> kv;
  if (half.side.cache) {
    kv.emplace(half.side.model.config(), *half.side.cache, batch.rows());
    CHECK(kv->add_sequence() == batch.segments[0].sequence);
    options.kv = &*kv;
  }
  return half.side.model.hidden(ctx, batch, options);
}

// Logits of rows [begin, begin + n) on the host.
void Divergence::load_logits(Half& half, const Var& h, int64_t begin, int64_t n) {
  Ctx ctx = context(half.side, half.pool);
  std::vector<int32_t> rows(static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), static_cast<int32_t>(begin));
  Var z = half.side.model.logits(ctx, select_rows(ctx, h, rows));
  Var single = ctx.make_aux(DType::kF32, z.t.rows, z.t.cols);
  half.side.dev.copy(z.t, single.t);
  half.logits.resize(static_cast<size_t>(single.t.size()));
  half.side.dev.download(single.t, half.logits.data());
}

std::vector<float> Divergence::token_logps(Half& half, const Var& h,
                                           std::span<const int32_t> targets) {
  Ctx ctx = context(half.side, half.pool);
  int64_t n = static_cast<int64_t>(targets.size());
  Var logp = token_logp(ctx, h, half.side.model.head(), ctx.make_ids(targets.data(), n));
  Var single = ctx.make_aux(DType::kF32, n, 1);
  half.side.dev.copy(logp.t, single.t);
  std::vector<float> out(targets.size());
  half.side.dev.download(single.t, out.data());
  return out;
}

void Divergence::take(const LogitDivergence& d) {
  ++tokens_;
  reference_.nats -= d.reference_logp;
  model_.nats -= d.logp;
  difference_.add(d.logp - d.reference_logp);
  if (!with_kl_) return;
  kl_.add(d.kl);
  kls_.push_back(static_cast<float>(d.kl));
  same_top_ += d.same_top;
  double by = std::exp(d.logp) - std::exp(d.reference_logp);
  probability_squares_ += by * by;
}

void Divergence::add(std::span<const int32_t> ids) {
  CHECK(ids.size() >= 2u);
  int64_t n = static_cast<int64_t>(ids.size()) - 1;
  std::span<const int32_t> targets = ids.subspan(1);
  Batch batch;
  batch.append(ids.first(static_cast<size_t>(n)));
  Var p = hidden(reference_, batch), q = hidden(model_, batch);
  std::vector<LogitDivergence> found(static_cast<size_t>(n));
  if (with_kl_) {
    int64_t v = model_.side.model.config().vocab_size;
    for (int64_t begin = 0; begin < n; begin += kRows) {
      int64_t rows = std::min(kRows, n - begin);
      load_logits(reference_, p, begin, rows);
      load_logits(model_, q, begin, rows);
      parallel_tasks(rows, [&](int64_t i) {
        size_t at = static_cast<size_t>(begin + i);
        found[at] = compare_logits(reference_.logits.data() + i * v, model_.logits.data() + i * v,
                                   v, targets[at]);
      });
    }
  } else {
    std::vector<float> a = token_logps(reference_, p, targets);
    std::vector<float> b = token_logps(model_, q, targets);
    for (size_t i = 0; i < found.size(); ++i) {
      found[i].reference_logp = static_cast<double>(a[i]);
      found[i].logp = static_cast<double>(b[i]);
    }
  }
  for (const LogitDivergence& d : found) take(d);
  for (const Half* half : {&reference_, &model_}) {
    if (!std::isfinite(half->nats))
      throw Error(half->side.name, "gives log-probabilities that are not finite",
                  "the weights are damaged");
  }
}

DivergenceReport Divergence::report() const {
  DivergenceReport r;
  r.tokens = tokens_;
  if (tokens_ == 0) return r;
  double n = static_cast<double>(tokens_);
  r.reference_perplexity = std::exp(reference_.nats / n);
  r.perplexity = std::exp(model_.nats / n);
  r.logp_difference = difference_.mean(tokens_);
  r.ratio.value = std::exp(-r.logp_difference.value);
  r.ratio.standard_error = r.ratio.value * r.logp_difference.standard_error;
  if (!with_kl_) return r;
  r.kl = kl_.mean(tokens_);
  std::vector<float> sorted = kls_;
  r.kl_median = quantile(sorted, 0.5);
  r.kl_99 = quantile(sorted, 0.99);
  r.kl_max = quantile(sorted, 1);
  double share = static_cast<double>(same_top_) / n;
  r.same_top = {share, std::sqrt(share * (1 - share) / std::max(n - 1, 1.0))};
  r.rms_probability = std::sqrt(probability_squares_ / n);
  return r;
}

}  // namespace wels
