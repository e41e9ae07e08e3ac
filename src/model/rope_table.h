// Rotary angles: inverse frequencies with linear scaling, YaRN (Peng et al. 2023, as DeepSeek
// applies it to k^R only, V3 §4.3) or Llama 3's scaling, the factor of cos and sin, the softmax
// scale, and a table of cos and sin that grows with the positions in use.
#pragma once
#include <vector>

#include "formats/model_config.h"
#include "tensor/pool.h"

namespace wels {

// [rotary_dim / 2] angles per position, in double.
std::vector<double> rope_inverse_frequencies(const RopeConfig& rope, int64_t rotary_dim);
// What cos and sin are multiplied by (YaRN's attention factor; 1 without YaRN). mla: DeepSeek's
// ratio of two mscales.
double rope_magnitude(const RopeConfig& rope, bool mla);
// Scale of the scores: 1/sqrt(query head width), times mscale² for DeepSeek with YaRN.
double softmax_scale(const ModelConfig& cfg);

class RopeTable {
 public:
  RopeTable(const ModelConfig& cfg, DType dtype);  // dtype f32 or f64
  // Makes sure positions [0, n) are there. cos() and sin() are [at least n, rotary_dim / 2].
  void reserve(int64_t n);
  const Tensor& cos() const { return cos_; }
  const Tensor& sin() const { return sin_; }
  int64_t rotary_dim() const { return 2 * static_cast<int64_t>(inv_freq_.size()); }

 private:
  std::vector<double> inv_freq_;
  double magnitude_;
  DType dtype_;
  std::vector<double> memory_;  // both tables; doubles for their alignment
  Tensor cos_, sin_;
};

}  // namespace wels
