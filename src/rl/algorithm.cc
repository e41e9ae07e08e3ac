#include "rl/algorithm.h"

#include "base/error.h"

namespace wels {

const std::vector<RlAlgorithm>& rl_algorithms() {
  static const std::vector<RlAlgorithm> all = [] {
    std::vector<RlAlgorithm> out;
    out.push_back({.name = "reinforce",
                   .about = "on-policy gradient, group advantages, mean over tokens, no KL"});
    out.push_back(
        {.name = "grpo",
         .about = "as R1: clipped ratio, mean over each answer, KL to a reference",
         .loss = {.surrogate = Surrogate::kClipped, .mean = LossMean::kSequence, .beta = 0.001}});
    // ε = 10: clip(r, -9, 11), so that ratios stop at 11 and, being positive, at nothing below.
    out.push_back({.name = "r1",
                   .about = "GRPO with R1's numbers: 16 updates a rollout, ratios up to 11",
                   .loss = {.surrogate = Surrogate::kClipped,
                            .clip_low = 10,
                            .clip_high = 10,
                            .mean = LossMean::kSequence,
                            .beta = 0.001},
                   .mini_batches = 16});
    out.push_back({.name = "dr-grpo",
                   .about = "GRPO without the biases of length and difficulty",
                   .loss = {.surrogate = Surrogate::kClipped, .mean = LossMean::kConstant},
                   .scale = AdvantageScale::kNone});
    out.push_back({.name = "dapo",
                   .about = "mean over tokens, clip-higher, dynamic sampling, overlong shaping",
                   .loss = {.surrogate = Surrogate::kClipped, .clip_low = 0.2, .clip_high = 0.28},
                   .dynamic_sampling = true,
                   .overlong_filter = true,
                   .overlong_zone = 0.2});
    out.push_back({.name = "gspo",
                   .about = "one ratio per answer, made for mixtures of experts",
                   .loss = {.surrogate = Surrogate::kSequence,
                            .clip_low = 3e-4,
                            .clip_high = 4e-4,
                            .mean = LossMean::kSequence},
                   .mini_batches = 4});
    out.push_back({.name = "cispo",
                   .about = "no token loses its gradient, ratios are capped",
                   .loss = {.surrogate = Surrogate::kCispo, .clip_high = 5}});
    return out;
  }();
  return all;
}

RlAlgorithm rl_algorithm(const std::string& name) {
  std::string names;
  for (const RlAlgorithm& a : rl_algorithms()) {
    if (a.name == name) return a;
    names += (names.empty() ? "" : ", ") + a.name;
  }
  throw Error("--algorithm", "there is no \"" + name + "\"", "use " + names);
}

}  // namespace wels
