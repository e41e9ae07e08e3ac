// Rollouts: a task's questions as prompts, several completions of each by the engine, on the very
// weights that are trained. A prompt's rows are computed once and shared by its completions; what
// the cache holds is forgotten as soon as a weight has moved on, while the device's packed weights
// follow Weight::version by themselves.
//
// Tokens are drawn from the whole distribution or, with top-k, top-p or min-p, from what these
// leave. Then every token says what that was, so that the policy that is trained is over the same
// tokens as the one that sampled; and every row can say which experts it went through, to go
// through them again in training (V3.2's "keep sampling mask" and "keep routing", 2512.02556 §3.1).
// Sampler and trainer are one code on one set of weights, so until the first update of a step
// routing differs by rounding alone, which RlStage measures in every step.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/signal.h"
#include "engine/engine.h"
#include "rl/think_bounds.h"
#include "tasks/answer.h"
#include "tasks/task.h"
#include "text/chat.h"

namespace wels {

struct RolloutSettings {
  DType dtype = DType::kBF16;  // T of activations and cache
  int64_t max_tokens = 256;    // of a completion
  bool thinking = true;        // prompts ask for a thought, where the template has a choice
  ChatTemplate chat_template = ChatTemplate::kDeepSeekV31;
  Speculate speculate = Speculate::kNone;
  int top_k = 0;     // 0: off
  double top_p = 1;  // 1: off
  double min_p = 0;  // 0: off
  bool keep_routing = false;
  // MLA attends as in training (MlaRows::kExpanded): hidden states have the trainer's bits, and
  // log-probabilities differ by the rounding of the softmax alone.
  bool exact = false;
  bool filtered() const { return top_k > 0 || top_p < 1 || min_p > 0; }
  // Bounds of the thought, for evaluation: what they force was not drawn from the policy, so
  // nothing is to be learned from it.
  ThinkBounds think = {};
  // Asked before every token; true: the completions under way are given up.
  std::function<bool()> stop = stop_requested;
};

// One completion.
struct Rollout {
  std::vector<int32_t> tokens;  // with the end-of-text token, where it came
  std::vector<double> logp;     // of each, as it was drawn
  // Of each, where drawing is filtered: which tokens were left, ceil(vocab / 32) words
  // (Targets::kept).
  std::vector<int32_t> kept;
  // With keep_routing: of all rows, prompt's too, but the last token's (Batch::experts).
  std::vector<int16_t> experts;
  bool ended = false;  // by the end-of-text token
  Completion parts;
};
// Whether it thought: its thought holds more than blanks.
bool is_long(const Rollout& r);

// Prompts' token ids. Throws Error where the tokenizer lacks an end-of-text token or one of the
// template's markers, or where the model has no room for the prompt and max_tokens.
class RolloutSampler {
 public:
  // The model is one for inference or one that is trained; everything outlives the sampler.
  RolloutSampler(Device& dev, Model& model, const Tokenizer& tokenizer, RolloutSettings settings);
  ~RolloutSampler();

  std::vector<int32_t> prompt(std::string_view question) const;
  // Whether the model has room for it and max_tokens.
  bool has_room(std::string_view question) const;

  struct Draw {
    std::span<const std::vector<int32_t>> prompts;
    int64_t samples = 1;                                           // completions of each prompt
    double temperature = 1;                                        // 0: the most probable tokens
    std::function<uint64_t(int64_t prompt, int64_t sample)> seed;  // may be empty at 0
    // Where the others are given up: told of those that had come to their end.
    std::function<void(int64_t prompt, int64_t sample, const Rollout&)> rescued = {};
  };
  // [prompts · samples], a prompt's completions together. The same arguments and weights give the
  // same bits, whatever the machine's memory and threads. Throws what the engine refuses, and
  // Interrupted (base/signal.h) once RolloutSettings::stop says so.
  std::vector<Rollout> sample(const Draw& draw);

  const Tokenizer& tokenizer() const { return tokenizer_; }
  const RolloutSettings& settings() const { return settings_; }
  // Of the last call.
  const GenerateTiming& timing() const { return timing_; }
  // The same as one number that only the draw says: its prompts, each once, and what was drawn,
  // whatever the cache held.
  int64_t drawn_tokens() const { return drawn_tokens_; }

 private:
  ChatText render(std::string_view question) const;
  void make_room(const Draw& draw);
  std::vector<GenerateResult> compute_prompts(const Draw& draw);
  GenerateRequest request(const Draw& draw, int64_t prompt, int64_t sample) const;
  Rollout rollout(GenerateResult result, std::span<const int16_t> prompt_experts) const;

  Device& dev_;
  Model& model_;
  const Tokenizer& tokenizer_;
  RolloutSettings settings_;
  std::vector<int32_t> stop_ids_;
  ThinkBudget think_;
  bool begun_ = false;  // prompts begin the answer's thought
  std::unique_ptr<Engine> engine_;
  int64_t context_ = 0, cache_tokens_ = 0;
  int64_t drawn_tokens_ = 0;
  uint64_t weights_version_ = 0;
  GenerateTiming timing_;
};

}  // namespace wels
