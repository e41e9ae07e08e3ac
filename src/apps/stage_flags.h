// The flags that all stages behind pretraining share (SFT, DPO): schedule, optimiser, intervals.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "train/stage.h"

namespace wels {

constexpr double kMostMinutes = 1e6;  // about two years

// What happens between the steps of any stage, and the seed.
void add_upkeep_flags(CLI::App* sub, StageSettings& s);

struct StageFlags {
  std::string dtype = "bf16", optimizer = "adamw";
  int64_t steps = 0, warmup = -1;
  double lr = 0, weight_decay = -1, bias_update = -1, stable = -1;

  void add(CLI::App* sub, StageSettings& s);
  // Fills what the flags stand for. steps, rate, decay and stable: what holds where no flag says
  // otherwise. A new model begins with the balancing of pretraining, a trained one keeps its
  // router's biases.
  struct Defaults {
    int64_t steps;
    double lr, weight_decay, stable;
    bool new_model;
  };
  void apply(StageSettings& s, const Defaults& d) const;
};

}  // namespace wels
