#include "rl/think_bounds.h"

#include <algorithm>

#include "base/error.h"
#include "tasks/answer.h"

namespace wels {

ThinkBounds no_thought(const Tokenizer& tokenizer) {
  ThinkBounds out;
  if (tokenizer.find(kThinkBegin) && tokenizer.find(kThinkEnd)) out.most = 0;
  return out;
}

ThinkBudget think_budget(const Tokenizer& tokenizer, const ThinkBounds& bounds) {
  ThinkBudget out;
  out.most = bounds.most;
  out.least = bounds.least;
  if (!bounds.any()) return out;
  std::optional<int32_t> begin = tokenizer.find(kThinkBegin), end = tokenizer.find(kThinkEnd);
  if (!begin || !end)
    throw Error("tokenizer.json", "has no tokens <think> and </think>: a thought has no bounds",
                "leave --think-budget and --think-min away");
  out.begin_id = *begin;
  out.end_id = *end;
  out.again = tokenizer.encode(bounds.again, AddedTokens::kAsText);
  if (out.least > 0 && out.again.empty())
    throw Error("--think-min", "there are no words to go on with", "such as Wait");
  return out;
}

bool ends_in_thought(std::span<const int32_t> prompt, const ThinkBudget& budget) {
  auto last = std::find_if(prompt.rbegin(), prompt.rend(), [&](int32_t id) {
    return id == budget.begin_id || id == budget.end_id;
  });
  return last != prompt.rend() && *last == budget.begin_id;
}

}  // namespace wels
