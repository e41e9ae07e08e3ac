// Optimisers over the model's weights: AdamW as V3 trains with it (§4.2), and Muon (Jordan et al.
// 2024; per matrix and per expert, update scale of Moonlight, arXiv 2502.16982) with AdamW for what
// is not a hidden matrix.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "backend/device.h"
#include "model/model.h"
#include "tensor/pool.h"

namespace wels {

struct OptimizerConfig {
  bool muon = false;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;  // V3 §4.2; eps is not given there
  double weight_decay = 0.1;                     // on matrices only
  double clip = 1.0;                             // largest global gradient norm; 0: no clipping
  double momentum = 0.95;                        // Muon, Nesterov
};

// Coefficient for the gradients: min(1, clip / (norm + 1e-6)).
double clip_coefficient(double norm, double clip);

class Optimizer {
 public:
  // Takes every trainable weight of the model; its f32 (f64) values and gradients are updated in
  // place.
  Optimizer(Device& dev, Model& model, OptimizerConfig config);

  // Global L2 norm over all gradients; not finite if any element is not.
  double gradient_norm();
  // One update with learning rate lr; gradients are multiplied by grad_scale first. Weight::version
  // moves on.
  void step(double lr, double grad_scale);

  int64_t steps() const { return steps_; }
  void set_steps(int64_t n) { steps_ = n; }
  // The state by name ("m.<weight>" with the expert's number, "v.<weight>"), for checkpoints.
  std::vector<std::pair<std::string, Tensor>> state();
  int64_t state_bytes() const;

 private:
  struct Slot {
    Weight* weight;
    bool decays, muon;
    std::vector<OwnedTensor> m, v;
  };
  void muon_update(Slot& slot, size_t e, double lr, double grad_scale);
  Device& dev_;
  OptimizerConfig config_;
  Pool pool_;
  std::vector<Slot> slots_;
  int64_t steps_ = 0;
};

}  // namespace wels
