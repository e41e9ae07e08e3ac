#include "model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace wels {
namespace {

// The (fractional) index of the frequency that makes `rotations` turns over the original context.
double correction_dim(double rotations, const RopeConfig& r, int64_t dim) {
  double context = static_cast<double>(r.original_max_position_embeddings);
  return static_cast<double>(dim) * std::log(context / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(r.theta));
}

// YaRN: fast frequencies stay, slow ones are divided by the factor, a linear ramp in between.
void apply_yarn(std::vector<double>& freq, const RopeConfig& r, int64_t dim) {
  double low = std::max(std::floor(correction_dim(r.beta_fast, r, dim)), 0.0);
  double high =
      std::min(std::ceil(correction_dim(r.beta_slow, r, dim)), static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < freq.size(); ++i) {
    double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    freq[i] = freq[i] / r.factor * ramp + freq[i] * (1 - ramp);
  }
}

// Llama 3.1: by wavelength, with a smooth step between the two bounds.
void apply_llama3(std::vector<double>& freq, const RopeConfig& r) {
  double context = static_cast<double>(r.original_max_position_embeddings);
  double low_wavelength = context / r.low_freq_factor,
         high_wavelength = context / r.high_freq_factor;
  for (double& f : freq) {
    double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      f /= r.factor;
      continue;
    }
    double smooth =
        (context / wavelength - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor);
    f = (1 - smooth) * f / r.factor + smooth * f;
  }
}

}  // namespace

std::vector<double> rope_inverse_frequencies(const RopeConfig& rope, int64_t dim) {
  std::vector<double> freq(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < freq.size(); ++i) {
    freq[i] = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
  }
  if (rope.scaling == RopeScaling::kLinear)
    for (double& f : freq) f /= rope.factor;
  if (rope.scaling == RopeScaling::kYarn) apply_yarn(freq, rope, dim);
  if (rope.scaling == RopeScaling::kLlama3) apply_llama3(freq, rope);
  return freq;
}

double rope_magnitude(const RopeConfig& rope, bool mla) {
  if (rope.scaling != RopeScaling::kYarn) return 1.0;
  if (mla)
    return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
  return rope.attention_factor > 0 ? rope.attention_factor : yarn_mscale(rope.factor, 1.0);
}

double softmax_scale(const ModelConfig& cfg) {
  double scale = 1.0 / std::sqrt(static_cast<double>(cfg.qk_head_dim()));
  if (cfg.is_mla() && cfg.rope.scaling == RopeScaling::kYarn && cfg.rope.mscale_all_dim != 0) {
    double m = yarn_mscale(cfg.rope.factor, cfg.rope.mscale_all_dim);
    scale *= m * m;
  }
  return scale;
}

RopeTable::RopeTable(const ModelConfig& cfg, DType dtype)
    : inv_freq_(
          rope_inverse_frequencies(cfg.rope, cfg.is_mla() ? cfg.qk_rope_head_dim : cfg.head_dim)),
      magnitude_(rope_magnitude(cfg.rope, cfg.is_mla())),
      dtype_(dtype) {
  reserve(1);
}

void RopeTable::reserve(int64_t n) {
  if (n <= cos_.rows) return;
  int64_t rows = 64;
  while (rows < n) rows *= 2;
  int64_t half = static_cast<int64_t>(inv_freq_.size());
  memory_.assign(static_cast<size_t>(2 * rows * half), 0.0);
  cos_ = Tensor(memory_.data(), dtype_, rows, half);
  sin_ = Tensor(memory_.data() + rows * half, dtype_, rows, half);
  for (int64_t p = 0; p < rows; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      double angle = static_cast<double>(p) * inv_freq_[static_cast<size_t>(i)];
      double c = std::cos(angle) * magnitude_, s = std::sin(angle) * magnitude_;
      if (dtype_ == DType::kF64) {
        cos_.row<double>(p)[i] = c;
        sin_.row<double>(p)[i] = s;
      } else {
        cos_.row<float>(p)[i] = static_cast<float>(c);
        sin_.row<float>(p)[i] = static_cast<float>(s);
      }
    }
  }
}

}  // namespace wels
