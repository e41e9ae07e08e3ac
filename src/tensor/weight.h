// Weight: a matrix of parameters, or `experts` equal matrices (one per routed expert), as the ops
// see it.
//
// `value` is the one true copy, in whatever dtype it is kept: f32 masters in training, the
// checkpoint's own bytes (memory mapped) in inference. A device may keep copies in the layout of
// its kernels; they hang on `cache` and are made again when `version` has moved on.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace wels {

struct LowRank;

struct Weight {
  std::string name;  // HF tensor name; of a stack of experts: with "{}" for the expert's number
  int64_t rows = 0, cols = 0;  // of one matrix: [out, in]; norms and biases: [1, d]
  std::vector<Tensor> value;   // one [rows, cols] per expert (one entry for a plain matrix)
  std::vector<Tensor> scale;   // FP8 only: f32 [ceil(rows/128), ceil(cols/128)] per expert
  std::vector<Tensor> grad;    // f32 (f64 on ref<double>) as value; empty: frozen
  // Compute in f32 whatever the activations' dtype (router, V3 §3.3.1).
  bool full_precision = false;
  bool fp8 = false;  // takes part in FP8 training (V3 §3.3: all Linear but embedding, head, router)
  bool fresh_grad = true;  // grad holds nothing yet: the next gradient is set, not added
  uint64_t version = 0;    // += 1 whenever value changes
  mutable std::shared_ptr<void> cache;  // the device's own copies
  std::shared_ptr<LowRank> lora;        // empty: none. Ops add it to every product (nn/matmul.cc)

  int64_t experts() const { return static_cast<int64_t>(value.size()); }
  int64_t size() const { return experts() * rows * cols; }
  bool trainable() const { return !grad.empty(); }
};

// The name of expert e's matrix of a stack so named: "{}" becomes e. A name without it stays.
std::string tensor_name(const std::string& name, int64_t e);

// A trained change of a weight that is frozen itself: w + scale · up · down (model/lora.h).
struct LowRank {
  Weight down, up;  // [rank, in], [out, rank]
  double scale = 1;
};

}  // namespace wels
