// `wels rl` as a function, for commands of which reinforcement learning is a part.
#pragma once
#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "apps/commands.h"
#include "apps/sft_model.h"
#include "apps/stage_flags.h"
#include "apps/ui_flags.h"
#include "rl/rl_stage.h"

namespace wels {

struct RlFlags {
  DeviceFlags device;
  UiFlags ui;
  StageFlags stage;
  StageSettings settings;
  RlSettings rl;
  // What an algorithm has unless a flag says otherwise.
  struct Overrides {
    std::optional<double> beta, clip_low, clip_high, stale_delta, overlong_zone;
    std::optional<int64_t> mini_batches;
    std::optional<LossMean> mean;
    std::optional<AdvantageScale> scale;
    std::optional<bool> dynamic_sampling, overlong_filter;
  } set;
  SftModelFlags model;
  std::string algorithm = "reinforce";
  bool unbiased_kl = false, no_think = false;
  void add(CLI::App* sub);
};

struct RlOutcome {
  StageResult result;
  int64_t sampled_tokens = 0;  // of the answers of all steps
};

// Throws Error for what can be seen of the flags without the model and its tokenizer.
void check_rl_flags(RlFlags f);
// The whole run, from flags to the last line. Throws Error.
RlOutcome rl_job(RlFlags f);

}  // namespace wels
