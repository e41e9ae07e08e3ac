// The algorithms by name: what each one is, as settings of the same code.
#pragma once
#include <string>
#include <vector>

#include "rl/advantage.h"
#include "rl/policy_objective.h"

namespace wels {

struct RlAlgorithm {
  std::string name, about;
  PolicyLoss loss = {};
  AdvantageScale scale = AdvantageScale::kGroup;
  int64_t mini_batches = 1;  // updates per rollout
  // DAPO: groups without variance are replaced by others.
  bool dynamic_sampling = false;
  // DAPO: completions cut at the limit do not count in the loss.
  bool overlong_filter = false;
  double overlong_zone = 0;  // share of the limit in which the soft penalty grows
};

// reinforce, grpo, r1, dr-grpo, dapo, gspo, cispo.
const std::vector<RlAlgorithm>& rl_algorithms();
// Throws Error("--algorithm", ...) listing the names.
RlAlgorithm rl_algorithm(const std::string& name);

}  // namespace wels
