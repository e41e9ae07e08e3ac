// Generator: prompts of token ids → answers of token ids, over the paged KV cache. One sequence or
// many at once: every step feeds one row per running sequence (decode) or a chunk of a prompt
// (prefill) to Model::hidden. What a sequence gets does not depend on the others: its own random
// stream, and ops whose rows are independent.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/sampler.h"
#include "model/model.h"

namespace wels {

struct GenerateRequest {
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_new_tokens = 256;
  SamplingParams sampling;
  std::vector<int32_t> stop_ids;  // end-of-text tokens; the stop token itself is not in the answer
  // Called for every new token; false stops the sequence (stop strings, Ctrl-C).
  std::function<bool(int32_t id)> on_token;
};

struct GenerateResult {
  std::vector<int32_t> tokens;
  std::vector<double> logp;  // of each token, as sampled
  enum class Finish { kStop, kLength, kCancelled } finish = Finish::kLength;
};

struct GenerateTiming {
  int64_t prompt_tokens = 0, new_tokens = 0;
  double prefill_s = 0, decode_s = 0;
};

class Generator {
 public:
  // dtype: T of activations and cache. context: tokens of all sequences together that fit.
  Generator(Device& dev, Model& model, DType dtype, int64_t context);

  // All requests together; throws Error where a prompt does not fit.
  std::vector<GenerateResult> run(std::vector<GenerateRequest>& requests,
                                  GenerateTiming* timing = nullptr);

  static constexpr int64_t kPrefillChunk = 512;

 private:
  struct Running;
  std::vector<float> forward(const Batch& batch, const std::vector<int32_t>& rows);
  Device& dev_;
  Model& model_;
  DType dtype_;
  int64_t context_;
  Pool pool_;
  KvCache kv_;
};

}  // namespace wels
