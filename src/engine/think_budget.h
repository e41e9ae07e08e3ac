// A thought of bounded length, as a request's mask and replacement: beyond `most` tokens the mark
// that ends the thought is all that may come; where the model would end it, or the whole text,
// before `least` tokens, words such as "Wait" come instead and the thought goes on (s1, arXiv
// 2501.19393, §3.1).
//
// What the tokens are is the caller's to know; here they are ids.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/request.h"

namespace wels {

struct ThinkBudget {
  std::optional<int64_t> most;  // tokens of a thought, marks not counted
  int64_t least = 0;
  int32_t begin_id = -1, end_id = -1;  // <think>, </think>
  std::vector<int32_t> again;          // at least one where least > 0
  std::vector<int32_t> stop_ids = {};  // end the text, beside the request's own
  bool bounds() const { return most.has_value() || least > 0; }
};

// Of one request. Answers and tokens must come in order, as the engine asks.
class ThinkGuide {
 public:
  // begun: the prompt ends within a thought; else one begins where the answer's first token is
  // begin_id. vocab_size: of the model.
  ThinkGuide(ThinkBudget budget, bool begun, int64_t vocab_size);
  // The only token that may follow, as SamplePlace::mask; empty: any.
  std::span<const uint64_t> mask(std::span<const int32_t> answer);
  // The token to take instead of the one that was drawn.
  int32_t replace(int32_t drawn, std::span<const int32_t> answer);

 private:
  // Tokens of the thought so far; none: it has not begun, or is over.
  std::optional<int64_t> thought(std::span<const int32_t> answer);
  std::span<const uint64_t> only(int32_t id);
  ThinkBudget budget_;
  bool begun_;
  size_t followed_ = 0, left_to_say_ = 0;  // of `again`, at its end
  bool over_ = false;
  std::vector<uint64_t> mask_;
};

// Bounds the request's thought; what masked it before still does, behind the thought.
void bound_thought(GenerateRequest& request, const ThinkBudget& budget, bool begun,
                   int64_t vocab_size);

}  // namespace wels
