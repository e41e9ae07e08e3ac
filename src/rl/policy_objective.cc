#include "rl/policy_objective.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace wels {
namespace {

bool counts(const PolicySample& s, size_t t) { return s.mask.empty() || s.mask[t] != 0; }

// Mean over the tokens that count of a - b; 0 where there are none.
double mean_difference(const PolicySample& s, std::span<const double> a,
                       std::span<const double> b) {
  double sum = 0, n = 0;
  for (size_t t = 0; t < a.size(); ++t) {
    if (!counts(s, t)) continue;
    sum += a[t] - b[t];
    n += 1;
  }
  return n > 0 ? sum / n : 0;
}

double bounded(const PolicyLoss& p, double weight) {
  bool mask = p.correction == Correction::kMask || p.correction == Correction::kMaskSequence;
  if (mask) return weight > p.correction_cap ? 0.0 : weight;
  return std::min(weight, p.correction_cap);
}

// c_t for every token.
std::vector<double> corrections(const PolicyLoss& p, const PolicySample& s) {
  std::vector<double> c(s.logp.size(), 1.0);
  if (p.correction == Correction::kNone) return c;
  CHECK(s.sampled_logp.size() == s.logp.size());
  bool sequence =
      p.correction == Correction::kTruncateSequence || p.correction == Correction::kMaskSequence;
  double sum = 0;
  for (size_t t = 0; t < c.size(); ++t) {
    if (counts(s, t)) sum += s.old_logp[t] - s.sampled_logp[t];
  }
  for (size_t t = 0; t < c.size(); ++t)
    c[t] = bounded(p, std::exp(sequence ? sum : s.old_logp[t] - s.sampled_logp[t]));
  return c;
}

// A surrogate's value and its derivative with respect to the token's own logp.
struct Term {
  double value, slope;
  bool clipped = false;
};

// min(r A, clip(r, 1 - low, 1 + high) A); d r / d logp is r.
Term clipped_term(const PolicyLoss& p, double r, double a) {
  double plain = r * a;
  double limited = std::clamp(r, 1 - p.clip_low, 1 + p.clip_high) * a;
  if (limited < plain) return {limited, 0, true};
  return {plain, plain, false};
}

Term surrogate(const PolicyLoss& p, const PolicySample& s, size_t t, double sequence_ratio) {
  double a = s.advantage;
  switch (p.surrogate) {
    case Surrogate::kPlain:
      return {a * s.logp[t], a};
    case Surrogate::kClipped:
      return clipped_term(p, std::exp(s.logp[t] - s.old_logp[t]), a);
    case Surrogate::kSequence:
      // The ratio depends on every token: each one's derivative is the sum over the completion's
      // equal terms of r A / |o|, which is one term's r A.
      return clipped_term(p, sequence_ratio, a);
    case Surrogate::kCispo: {
      double r = std::exp(s.logp[t] - s.old_logp[t]), w = std::min(r, p.clip_high);
      return {w * a * s.logp[t], w * a, r > p.clip_high};
    }
  }
  CHECK(false);
  return {0, 0};
}

// KL(π || reference) of a token: k3 = e^d - d - 1 and its derivative 1 - e^d, or r k3, whose
// derivative is r k3 + r (1 - e^d) = -r d.
Term kl_term(const PolicyLoss& p, const PolicySample& s, size_t t) {
  double d = s.ref_logp[t] - s.logp[t], k3 = std::exp(d) - d - 1;
  if (!p.unbiased_kl) return {k3, 1 - std::exp(d)};
  double r = std::exp(s.logp[t] - s.old_logp[t]);
  return {r * k3, -r * d};
}

}  // namespace

void PolicyStats::add(const PolicyStats& o) {
  tokens += o.tokens;
  clipped += o.clipped;
  kl += o.kl;
  stale += o.stale;
  completions += o.completions;
  correction += o.correction;
}

std::vector<double> token_weights(std::span<const int64_t> tokens, std::span<const int64_t> groups,
                                  LossMean mean, double constant_length) {
  double all = 0;
  for (int64_t t : tokens) all += static_cast<double>(t);
  std::vector<double> out;
  for (int64_t size : groups) {
    double completions = static_cast<double>(groups.size()) * static_cast<double>(size);
    for (int64_t i = 0; i < size; ++i) {
      CHECK(out.size() < tokens.size());
      double own = static_cast<double>(tokens[out.size()]);
      double by = mean == LossMean::kSequence   ? completions * own
                  : mean == LossMean::kConstant ? completions * constant_length
                                                : all;
      out.push_back(own > 0 ? 1 / by : 0.0);
    }
  }
  CHECK(out.size() == tokens.size());
  return out;
}

double policy_objective(const PolicyLoss& p, const PolicySample& s, std::span<double> dlogp,
                        PolicyStats* stats) {
  size_t n = s.logp.size();
  CHECK(s.old_logp.size() == n);
  CHECK(dlogp.size() == n);
  CHECK(s.mask.empty() || s.mask.size() == n);
  CHECK(p.beta == 0 || s.ref_logp.size() == n);
  double tokens = 0;
  for (size_t t = 0; t < n; ++t) tokens += counts(s, t);
  double drift = mean_difference(s, s.logp, s.old_logp);  // mean log(π / old)
  double sequence_ratio = std::exp(drift);
  bool stale = p.stale_delta > 0 && s.advantage < 0 && -drift > p.stale_delta;
  std::vector<double> c = corrections(p, s);
  // The sequence surrogate's mask and weights apply to the completion as a whole: its tokens'
  // corrections are averaged, so that the derivative stays that of the value.
  if (p.surrogate == Surrogate::kSequence && p.correction != Correction::kNone && tokens > 0) {
    double sum = 0;
    for (size_t t = 0; t < n; ++t) sum += counts(s, t) ? c[t] : 0.0;
    std::fill(c.begin(), c.end(), sum / tokens);
  }
  double loss = 0;
  for (size_t t = 0; t < n; ++t) {
    dlogp[t] = 0;
    if (!counts(s, t)) continue;
    Term term = surrogate(p, s, t, sequence_ratio);
    double scale = stale ? 0.0 : c[t];
    double value = scale * term.value, slope = scale * term.slope;
    if (p.beta != 0) {
      Term kl = kl_term(p, s, t);
      value -= p.beta * kl.value;
      slope -= p.beta * kl.slope;
    }
    loss -= s.weight * value;
    dlogp[t] = -s.weight * slope;
    if (!stats) continue;
    stats->clipped += term.clipped;
    stats->correction += c[t];
    if (p.beta != 0) {
      double d = s.ref_logp[t] - s.logp[t];
      stats->kl += std::exp(d) - d - 1;
    }
  }
  if (stats) {
    stats->tokens += tokens;
    stats->stale += stale;
    stats->completions += 1;
  }
  return loss;
}

}  // namespace wels
