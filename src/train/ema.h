// An exponential moving average of the weights, which is often a better model than the last step's;
// V3 keeps one to see early how the model would do after the learning rate's decay (§3.2.3).
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "backend/device.h"
#include "model/model.h"
#include "tensor/pool.h"

namespace wels {

class WeightEma {
 public:
  // Starts as a copy of every weight of the model (the routers' selection biases too). Both outlive
  // this object. decay in [0, 1).
  WeightEma(Device& dev, Model& model, double decay);
  ~WeightEma();
  WeightEma(const WeightEma&) = delete;

  // After each optimiser step: average = β·average + (1 - β)·weight, β = min(decay, (1 + t)/(10 +
  // t)) with t the updates so far, so that the first steps' weights are soon forgotten.
  void update();
  // Swaps the averages and the live weights: evaluate or save the model in between, then call it
  // again. The destructor swaps back what is still swapped.
  void exchange();

  int64_t updates() const { return updates_; }
  void set_updates(int64_t n) { updates_ = n; }
  // The averages by name ("ema.<weight>", with the expert's number), for checkpoints. Not while
  // exchanged.
  std::vector<std::pair<std::string, Tensor>> state() const;

 private:
  struct Slot {
    Weight* weight;
    std::vector<OwnedTensor> average;  // keeps the memory
    std::vector<Tensor>
        idle;  // what is not in the model now: the averages, or the weights while exchanged
  };
  Device& dev_;
  double decay_;
  Pool pool_;
  std::vector<Slot> slots_;
  int64_t updates_ = 0;
  bool exchanged_ = false;
};

}  // namespace wels
