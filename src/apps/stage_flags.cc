#include "apps/stage_flags.h"

#include <algorithm>

namespace wels {

void StageFlags::add(CLI::App* sub, StageSettings& s) {
  TrainerConfig& t = s.trainer;
  sub->add_option("-o,--out", s.out, "run folder")->capture_default_str();
  sub->add_option("--steps", steps, "optimiser steps")->check(CLI::NonNegativeNumber);
  sub->add_option("--minutes", s.minutes, "as many steps as fit into this time instead")
      ->check(CLI::Range(0.0, kMostMinutes));
  sub->add_option("--lr", lr, "peak learning rate")->check(CLI::NonNegativeNumber);
  sub->add_option("--warmup", warmup, "steps of warm-up (default: 3 %)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--final-ratio", s.schedule.final_ratio, "last learning rate / peak")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--stable", stable, "constant until this share of the steps, then cosine")
      ->check(CLI::Range(0.0, 1.0));
  sub->add_option("--optimizer", optimizer, "adamw or muon")
      ->check(CLI::IsMember({"adamw", "muon"}))
      ->capture_default_str();
  sub->add_option("--weight-decay", weight_decay, "on matrices")->check(CLI::NonNegativeNumber);
  sub->add_option("--clip", t.optimizer.clip, "largest gradient norm (0: off)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--dtype", dtype, "bf16 or f32 activations")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  sub->add_flag("--recompute", t.recompute, "recompute each block in the backward");
  sub->add_option("--bias-update", bias_update,
                  "speed of the aux-loss-free balancing (default: 0.001 in a new model, else 0)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--balance-alpha", t.balance_alpha, "sequence-wise balance loss (0: off)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_upkeep_flags(sub, s);
}

void add_upkeep_flags(CLI::App* sub, StageSettings& s) {
  sub->add_option("--seed", s.seed, "of weights and data order")->capture_default_str();
  sub->add_option("--save-every", s.save_every, "steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--eval-every", s.eval_every, "steps; what is saved is evaluated as well")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--sample-every", s.sample_every, "steps (0: never)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--keep", s.keep, "checkpoints kept beside the best")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

void StageFlags::apply(StageSettings& s, const Defaults& d) const {
  s.schedule.peak = lr > 0 ? lr : d.lr;
  s.schedule.steps = steps > 0 ? steps : d.steps;
  s.schedule.stable = stable >= 0 ? stable : d.stable;
  s.schedule.warmup = warmup >= 0 ? warmup : std::max<int64_t>(1, s.schedule.steps * 3 / 100);
  s.trainer.optimizer.muon = optimizer == "muon";
  s.trainer.optimizer.weight_decay = weight_decay >= 0 ? weight_decay : d.weight_decay;
  s.trainer.dtype = dtype == "f32" ? DType::kF32 : DType::kBF16;
  s.trainer.bias_update = bias_update >= 0 ? bias_update : d.new_model ? 1e-3 : 0;
}

}  // namespace wels
