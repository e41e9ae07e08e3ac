// One row of token_kl: the divergence between two distributions over k named tokens and one bucket
// for all the others, and its slope. Everything that does not need the vocabulary.
//
// With buckets b of the student's mass p and the teacher's q, s = z / T:
//   forward  Σ q log(q / p)    d/ds_b = p_b - q_b
//   reverse  Σ p log(p / q)    d/ds_b = p_b (log(p_b / q_b) - KL)
// d/ds of a token inside the tail's bucket is the bucket's, times the token's share of it.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "backend/device.h"

namespace wels {

// The rows that have a distribution.
inline bool has_teacher(const TopTokens& t, int64_t row) {
  return t.k() > 0 && t.id.row<int32_t>(row)[0] >= 0;
}

// s[0..k): the student's s of the teacher's tokens, replaced by d kl / ds; s[k]: gets the bucket's;
// s[k + 1]: log of the bucket's sum of e^s. R is f32 or f64, as logp, tail and s are; arithmetic in
// double. Returns kl.
template <class R>
double kl_row(const int32_t* id, const R* logp, R tail, int64_t k, bool reverse, R* s) {
  double tail_lse = static_cast<double>(s[k + 1]), top = tail_lse, sum = 0;
  for (int64_t j = 0; j < k; ++j) {
    if (id[j] >= 0) top = std::max(top, static_cast<double>(s[j]));
  }
  sum = std::exp(tail_lse - top);
  for (int64_t j = 0; j < k; ++j) {
    if (id[j] >= 0) sum += std::exp(static_cast<double>(s[j]) - top);
  }
  double lse = top + std::log(sum), kl = 0;
  auto term = [&](double log_p, double log_q, double q) {
    double p = std::exp(log_p);
    if (reverse) return p > 0 ? p * (log_p - log_q) : 0.0;
    return q > 0 ? q * (log_q - log_p) : 0.0;
  };
  auto slope = [&](double log_p, double log_q, double q) {
    double p = std::exp(log_p);
    if (reverse) return p > 0 ? p * (log_p - log_q - kl) : 0.0;
    return p - q;
  };
  double q_tail = static_cast<double>(tail), log_q_tail = std::log(std::max(q_tail, kLeastMass));
  kl = term(tail_lse - lse, log_q_tail, q_tail);
  for (int64_t j = 0; j < k; ++j) {
    double log_q = static_cast<double>(logp[j]);
    if (id[j] >= 0) kl += term(static_cast<double>(s[j]) - lse, log_q, std::exp(log_q));
  }
  for (int64_t j = 0; j < k; ++j) {
    double log_q = static_cast<double>(logp[j]), log_p = static_cast<double>(s[j]) - lse;
    s[j] = id[j] < 0 ? R(0) : static_cast<R>(slope(log_p, log_q, std::exp(log_q)));
  }
  s[k] = static_cast<R>(slope(tail_lse - lse, log_q_tail, q_tail));
  return kl;
}

}  // namespace wels
