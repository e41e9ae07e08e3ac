// What a training step needs in memory, by adding up what is kept: for refusing a run that cannot
// fit before it starts, and for `wels info`.
#pragma once
#include <cstdint>
#include <string>

#include "formats/model_config.h"
#include "tensor/dtype.h"

namespace wels {

struct MemoryPlan {
  int64_t weights = 0;      // f32 masters
  int64_t gradients = 0;    // f32
  int64_t optimizer = 0;    // m and v, f32
  int64_t packed = 0;       // the device's copies for its kernels, both directions
  int64_t activations = 0;  // kept for the backward, of one micro-batch
  int64_t backward = 0;     // gradients of activations that live at the same time
  int64_t total() const {
    return weights + gradients + optimizer + packed + activations + backward;
  }
  std::string text() const;
};

// rows: tokens of one micro-batch. dtype: T. muon: one state tensor for matrices.
MemoryPlan plan_memory(const ModelConfig& cfg, int64_t rows, DType dtype, bool recompute,
                       bool muon);

// Throws Error saying how much is missing and what to change if the plan exceeds what is available.
void require_memory(const MemoryPlan& plan, int64_t available_bytes);

}  // namespace wels
