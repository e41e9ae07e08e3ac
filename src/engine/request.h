// What the engine is asked for and what it answers: token ids only.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/draft.h"
#include "engine/sampler.h"

namespace wels {

// What of the cache a request may use. kExact: what gives the bits of a run without a cache.
// kAny: also rows that MLA computed in another form, such as earlier answers; results are then
// equal up to rounding (tests/equivalence_test.cc). With GQA, and with MLA where 2r ≤ dn + dv, all
// rows are exact.
enum class Reuse { kNone, kExact, kAny };

// Where prompt and answer don't fit into the context: refuse the prompt, or drop its beginning so
// that half of the context or all of the answer has room, whichever is less.
enum class Overflow { kRefuse, kTruncateLeft };

struct GenerateRequest {
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_new_tokens = 256;
  int64_t min_new_tokens = 0;  // no stop token before
  SamplingParams sampling;
  std::vector<int32_t> stop_ids;  // end-of-text tokens; the stop token itself is not in the answer
  // The tokens that may follow the answer so far, as SamplePlace::mask; must be valid until the
  // next call. Asked once for every token, in order.
  std::function<std::span<const uint64_t>(std::span<const int32_t> answer)> mask;
  // The token to take in place of the one that was drawn, which may be itself; another's logp is 0,
  // as it was certain.
  std::function<int32_t(int32_t drawn, std::span<const int32_t> answer)> replace;
  // Called for every new token; false stops the sequence (stop strings, Ctrl-C).
  std::function<bool(const SampledToken& token)> on_token;
  std::function<void(struct GenerateResult result)> on_finish;
  // Asked before every step, a long prompt's too; true ends the sequence.
  std::function<bool()> cancelled;
  // Whose request it is. The cache is shared within a scope only, and scopes take turns.
  std::string scope;
  Reuse reuse = Reuse::kAny;
  // Of every token of the prompt but the first: its log-probability by the model's own softmax, and
  // so many of the most probable ones; -1: not asked for. And the mean of the prompt's last hidden
  // states. For either the whole prompt is computed, whatever `reuse` says.
  int prompt_logprobs = -1;
  bool mean_hidden = false;
  // Rows of the sequence, prompt and answer, whose routed experts are told: so many at most, from
  // this one on. A row is a token on its way through the blocks, so the answer's last token, which
  // nothing follows, has none.
  int64_t trace_from = 0, trace_rows = 0;
  Overflow overflow = Overflow::kRefuse;
  Speculate speculate = Speculate::kNone;  // kMtp needs a module
  int64_t drafts = 0;                      // tokens drafted for a step; 0: as many as pay
};

struct GenerateResult {
  std::vector<int32_t> tokens;
  std::vector<double> logp;                // of each token, as sampled
  std::vector<std::vector<int32_t>> kept;  // of each token, with SamplingParams::tell_kept
  enum class Finish { kStop, kLength, kContext, kCancelled, kError } finish = Finish::kLength;
  std::optional<Error> error;  // of this request alone (kError)
  int64_t prompt_tokens = 0;   // after Overflow::kTruncateLeft
  int64_t cached_tokens = 0;   // of the prompt: found, not computed
  int64_t drafted = 0, accepted = 0;
  std::vector<SampledToken> prompt_logp;  // [prompt_tokens - 1], with prompt_logprobs
  std::vector<float> mean_hidden;         // [d], with mean_hidden
  // [rows, MoE blocks, k], with trace_rows: the router's choice, best first; -1 where a row was
  // found in the cache.
  std::vector<int16_t> experts;
};

}  // namespace wels
