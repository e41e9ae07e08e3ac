// Sampling: logits of one row → one token. Filters in the order users of other engines expect:
// logit bias, penalties, temperature, top-k, top-p, min-p, then a draw. Temperature 0 is the
// largest logit, ties to the lower id.
#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/rng.h"

namespace wels {

struct SamplingParams {
  double temperature = 0.6;  // DeepSeek's advice for R1
  int top_k = 0;             // 0: off
  double top_p = 0.95;       // 1: off
  double min_p = 0;          // 0: off; relative to the most probable token
  double repetition_penalty =
      1;  // Keskar et al. 2019: divides positive, multiplies negative logits of seen tokens
  double presence_penalty = 0;    // OpenAI: subtracted once per seen token
  double frequency_penalty = 0;   // OpenAI: subtracted per occurrence
  int64_t penalty_window = 1024;  // last tokens that count as seen
  std::unordered_map<int32_t, float> logit_bias;
  uint64_t seed = 0;
  // Throws Error naming the parameter that is out of range.
  void validate() const;
};

struct SampledToken {
  int32_t id = -1;
  double logp = 0;  // log-probability in the filtered, tempered distribution it was drawn from (T =
                    // 0: of the plain softmax)
};

// `history`: the sequence so far (prompt and answer), for the penalties. `rng` is the sequence's
// own stream. Logits are scratch: they are overwritten. Throws Error if no logit is finite.
SampledToken sample(std::span<float> logits, std::span<const int32_t> history,
                    const SamplingParams& p, Rng& rng);

}  // namespace wels
