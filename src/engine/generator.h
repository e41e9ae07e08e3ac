// Generator: prompts of token ids → answers of token ids, over the paged KV cache. One sequence or
// many at once: every step feeds one row per running sequence (decode) or a chunk of a prompt
// (prefill) to Model::hidden. What a sequence gets does not depend on the others: its own random
// stream, and ops whose rows are independent. A Session keeps its sequence in the cache between
// runs: the next turn of a conversation costs what is new in it.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/sampler.h"
#include "model/model.h"

namespace wels {

// One conversation's place in a generator's cache; from Generator::new_session.
class Session {
 public:
  // What is cached, in order. A request that names the session computes what follows the longest
  // common beginning of its prompt and this, and leaves prompt and answer here.
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  friend class Generator;
  explicit Session(int32_t sequence) : sequence_(sequence) {}
  int32_t sequence_;
  std::vector<int32_t> tokens_;
};

struct GenerateRequest {
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_new_tokens = 256;
  SamplingParams sampling;
  std::vector<int32_t> stop_ids;  // end-of-text tokens; the stop token itself is not in the answer
  // Called for every new token; false stops the sequence (stop strings, Ctrl-C).
  std::function<bool(int32_t id)> on_token;
  // Asked before every step, a long prompt's too; true ends the sequence.
  std::function<bool()> cancelled;
  // Null: the sequence is forgotten at its end. Must be of this generator, and in one request only.
  Session* session = nullptr;
};

struct GenerateResult {
  std::vector<int32_t> tokens;
  std::vector<double> logp;  // of each token, as sampled
  enum class Finish { kStop, kLength, kCancelled } finish = Finish::kLength;
};

struct GenerateTiming {
  int64_t prompt_tokens = 0, new_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompts: found in their sessions, not computed
  double prefill_s = 0, decode_s = 0;
};

class Generator {
 public:
  // dtype: T of activations and cache. context: tokens of all sequences together that fit.
  Generator(Device& dev, Model& model, DType dtype, int64_t context);

  // An empty one. Its results are those of a run from scratch up to the rounding of prefill in
  // other chunks (tests/equivalence_test.cc). Its tokens count against the context until the
  // generator ends.
  Session new_session() { return Session(kv_.add_sequence()); }

  // All requests together; throws Error where a prompt does not fit.
  std::vector<GenerateResult> run(std::vector<GenerateRequest>& requests,
                                  GenerateTiming* timing = nullptr);

  static constexpr int64_t kPrefillChunk = 512;

 private:
  struct Running;
  void check(const GenerateRequest& r) const;
  void begin(Running& s);
  void end(Running& s);
  void take(Running& s, const SampledToken& token);
  bool step(std::span<Running* const> active);
  int64_t missing_pages(const Running& s) const;
  std::vector<float> forward(const Batch& batch, const std::vector<int32_t>& rows);
  Device& dev_;
  Model& model_;
  DType dtype_;
  int64_t context_;
  Pool pool_;
  KvCache kv_;
};

}  // namespace wels
