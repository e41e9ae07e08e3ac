// Learning rate and batch size as pure functions of the step. V3 §4.2: linear warm-up, constant,
// cosine to a tenth, constant again. WSD (Hu et al. 2024, MiniCPM): warm-up, stable, linear decay
// to zero at the end.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>

namespace wels {

struct Schedule {
  enum class Kind { kV3, kWsd } kind = Kind::kV3;
  double peak = 1e-3;
  double final_ratio = 0.1;  // V3: last rate / peak
  int64_t steps = 1000;      // of the whole run
  int64_t warmup = 20;
  double stable = 0.1;  // V3: constant until this share of the steps, cosine until `decay_end`
  double decay_end = 1.0;
  double wsd_decay = 0.2;  // WSD: share of the steps at the end that decay
  // Batch ramp: from batch_start · batch to the whole batch over the first ramp_share of the steps.
  // 1: no ramp.
  double batch_start = 1.0, ramp_share = 0.0;
};

// Learning rate of optimiser step `step` (0-based).
inline double learning_rate(const Schedule& s, int64_t step) {
  double t = static_cast<double>(step);
  if (step < s.warmup) return s.peak * (t + 1) / static_cast<double>(s.warmup);
  double total = static_cast<double>(s.steps);
  if (s.kind == Schedule::Kind::kWsd) {
    double begin = std::max(total * (1 - s.wsd_decay), static_cast<double>(s.warmup));
    return t < begin ? s.peak : s.peak * std::max(0.0, (total - t) / (total - begin));
  }
  double begin = std::max(total * s.stable, static_cast<double>(s.warmup)),
         end = total * s.decay_end;
  if (t < begin) return s.peak;
  if (t >= end) return s.peak * s.final_ratio;
  double half = 0.5 * (1 + std::cos(std::numbers::pi * (t - begin) / (end - begin)));
  return s.peak * (s.final_ratio + (1 - s.final_ratio) * half);
}

// Sequences of step `step` when the full batch has `full`.
inline int64_t batch_sequences(const Schedule& s, int64_t step, int64_t full) {
  double ramp = s.ramp_share * static_cast<double>(s.steps);
  if (s.batch_start >= 1.0 || static_cast<double>(step) >= ramp) return full;
  double share = s.batch_start + (1 - s.batch_start) * static_cast<double>(step) / ramp;
  return std::max<int64_t>(1, static_cast<int64_t>(std::floor(share * static_cast<double>(full))));
}

}  // namespace wels
