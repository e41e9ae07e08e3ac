// Sampling: logits of one row → one token. Steps in the order users of other engines expect: logit
// bias, penalties, mask, temperature, min-p, top-k, typical-p, top-p, then a draw. Temperature 0 is
// the largest logit, ties to the lower id.
//
// The draw is a race: of the candidates with probabilities p_i the one with the least -log(u_i) /
// p_i wins, which is i with probability p_i. u_i is a hash of the seed, the place in the sequence
// and the token id: no state, so a token's luck depends on nothing else that is served, and it is
// the same for everyone who draws for that place. A draft drawn from a similar distribution with
// the same u is therefore mostly the very token (Daliri et al. 2024, "Coupling without
// Communication"), and speculation can't change the text (engine/draft.h).
#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace wels {

struct SamplingParams {
  double temperature = 0.6;  // DeepSeek's advice for R1
  int top_k = 0;             // 0: off
  double top_p = 0.95;       // 1: off
  double min_p = 0;          // 0: off; relative to the most probable token
  double typical_p = 1;      // 1: off; Meister et al. 2022: the tokens nearest to the entropy
  double repetition_penalty =
      1;  // Keskar et al. 2019: divides positive, multiplies negative logits of seen tokens
  double presence_penalty = 0;    // OpenAI: subtracted once per seen token
  double frequency_penalty = 0;   // OpenAI: subtracted per occurrence
  int64_t penalty_window = 1024;  // last tokens that count as seen
  std::unordered_map<int32_t, float> logit_bias;
  uint64_t seed = 0;
  int top_logprobs =
      -1;  // how many of the most probable tokens to report; -1: no plain_logp either
  bool tell_kept = false;  // SampledToken::kept
  // Throws Error naming the parameter that is out of range.
  void validate() const;
};

struct SampledToken {
  int32_t id = -1;
  double logp = 0;  // log-probability in the filtered, tempered distribution it was drawn from (T =
                    // 0: of the softmax after bias, penalties and mask)
  // By the model's own softmax, before everything above (as OpenAI's API reports): of the token,
  // and of the most probable ones in descending order.
  double plain_logp = 0;
  std::vector<std::pair<int32_t, double>> top;
  std::vector<int32_t> kept;  // with tell_kept: what the filters left, ascending
  int8_t draft = -1;          // of speculation: 1 this token was proposed, 0 another, -1 none
};

// What is known of the place for which a token is drawn.
struct SamplePlace {
  // The sequence so far (prompt and answer), for the penalties; its length is the place.
  std::span<const int32_t> history = {};
  std::span<const uint64_t> mask = {};  // bit i % 64 of word i / 64: token i may come; empty: all
  std::span<const int32_t> never = {};  // tokens that may not
};

// Logits are scratch: they are overwritten. Throws Error if no logit is finite, or if one is not a
// number, or if the mask leaves none.
SampledToken sample(std::span<float> logits, const SamplePlace& place, const SamplingParams& p);

// Token `id` as the model's own softmax has it: id, plain_logp and the `top` most probable ones.
SampledToken plain_token(std::span<const float> logits, int32_t id, int top);

}  // namespace wels
