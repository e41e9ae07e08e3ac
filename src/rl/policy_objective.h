// Policy objectives: what reinforcement learning makes smaller, as pure functions of
// log-probabilities. A step's completions are ragged arrays of token log-probabilities under four
// policies: the one that learns (π), the one of before the step's updates (old), a reference, and
// the engine's own as it sampled. Everything else (models, batches, tapes) is elsewhere.
//
// clang-format off
// Per completion: loss = -Σ_t w · (c_t · S_t - β · KL_t), with w the weight of a token in the mean
// over the batch (token_weights), c_t a correction for sampler against trainer, and S_t one of
//
//   plain     A · log π                                     on-policy policy gradient
//   clipped   min(r A, clip(r, 1 - low, 1 + high) A)        r = π/old: PPO, GRPO; DAPO, high > low
//   sequence  the same with r = (Π_t π/old)^(1/|o|)         GSPO, arXiv 2507.18071
//   cispo     stop_gradient(min(r, high)) · A · log π       CISPO, MiniMax-M1, arXiv 2506.13585
//
// Sources: R1, Nature 645:633, eq. 1-3; Dr.GRPO 2503.20783; DAPO 2503.14476; V3.2 2512.02556 §3.1.
// clang-format on
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace wels {

enum class Surrogate { kPlain, kClipped, kSequence, kCispo };

// How token terms become one number.
enum class LossMean {
  kSequence,  // mean over a completion's tokens, then over its group's, then over groups: R1
  kConstant,  // sum over tokens / a constant length, then as before: Dr.GRPO
  kToken,     // mean over all tokens of the batch: DAPO
};

// Importance weights between the sampler's log-probabilities and the trainer's, π_old / π_sampled
// (truncated importance sampling). A sequence's weight is the product of its tokens'.
enum class Correction { kNone, kTruncate, kMask, kTruncateSequence, kMaskSequence };

struct PolicyLoss {
  Surrogate surrogate = Surrogate::kPlain;
  double clip_low = 0.2, clip_high = 0.2;  // cispo: the ratio's cap is clip_high itself
  LossMean mean = LossMean::kToken;
  double constant_length = 1;  // tokens, for kConstant
  double beta = 0;             // of the KL divergence from the reference; 0: none
  // k3 times the ratio, whose gradient is that of the divergence itself (V3.2).
  bool unbiased_kl = false;
  // > 0: completions with a negative advantage whose mean log(old / π) exceeds this do not count
  // (V3.2's off-policy sequence masking). Their KL does.
  double stale_delta = 0;
  Correction correction = Correction::kNone;
  double correction_cap = 2;  // truncated there, or masked above
};

// One completion; every array has a value per token.
struct PolicySample {
  std::span<const double> logp, old_logp;
  std::span<const double> ref_logp = {};      // empty where beta is 0
  std::span<const double> sampled_logp = {};  // empty where there is no correction
  std::span<const uint8_t> mask = {};         // 0: the token does not count; empty: all do
  double advantage = 0;
  double weight = 0;  // of each of its tokens (token_weights)
};

// Sums over tokens that count.
struct PolicyStats {
  double tokens = 0;
  double clipped = 0;  // the clipped branch is strictly smaller (cispo: the cap holds)
  double kl = 0;       // k3, nats
  double stale = 0;    // completions masked as stale
  double completions = 0;
  double correction = 0;  // of the weights c_t
  void add(const PolicyStats& other);
};

// Weights of the tokens of completions that have tokens[i] tokens that count: such that the sum of
// weight · term over all of them is the mean wanted; groups as in group_advantages. A completion
// without any counts in the means over completions.
std::vector<double> token_weights(std::span<const int64_t> tokens, std::span<const int64_t> groups,
                                  LossMean mean, double constant_length);

// The completion's part of the loss. dlogp [tokens] gets its gradient with respect to logp (not
// added); old_logp, ref_logp and sampled_logp are constants. stats may be null.
//
// clang-format off
// GRPO whole (R1 eq. 1-3, in DeepSeekMath's form per token): of a question's G answers o_i with
// rewards R_i, the step makes larger
//
//   J   = 1/G Σ_i 1/|o_i| Σ_t [ min(r A_i, clip(r, 1 - low, 1 + high) A_i) - β KL ]
//   r   = π(o_it) / old(o_it)                               low = high = ε
//   A_i = (R_i - mean R) / std R                            group_advantages
//   KL  = e^d - d - 1,  d = log ref(o_it) - log π(o_it)     k3 ≥ 0; its mean is KL(π || ref)
//
// and the loss is -J. Slopes per token by log π(o_it), before its weight 1/(G |o_i|): r A of r A,
// 0 where the clipped branch is smaller, 1 - e^d of KL.
//
// In numbers: an answer of two tokens, G = A = 1, ε = 0.2, β = 0.1, r = {1.5, 0.9}, d = {0, log 2}:
//   loss  = -1/2 (1.2 + 0.9 - 0.1 (2 - log 2 - 1)) = -1.0347
//   dlogp = -1/2 {0, 0.9 - 0.1 (1 - 2)} = {0, -0.5}
// clang-format on
double policy_objective(const PolicyLoss& p, const PolicySample& s, std::span<double> dlogp,
                        PolicyStats* stats);

}  // namespace wels
