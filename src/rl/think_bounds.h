// Bounds of a thought as people give them (--think-budget, --think-min), and as the engine takes
// them: evaluation, chat and generate have the same.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "engine/think_budget.h"
#include "text/tokenizer.h"

namespace wels {

struct ThinkBounds {
  std::optional<int64_t> most = {};  // tokens of a thought, then it is ended; none: no bound
  int64_t least = 0;                 // before which it goes on with `again` instead of ending
  std::string again = "Wait";
  bool any() const { return most.has_value() || least > 0; }
};

// A thought of no token, where the tokenizer has the marks; else no bounds.
ThinkBounds no_thought(const Tokenizer& tokenizer);

// In the tokenizer's ids. Throws Error where there are bounds and the tokenizer lacks <think> or
// </think>, or `least` has no words to go on with.
ThinkBudget think_budget(const Tokenizer& tokenizer, const ThinkBounds& bounds);

// Whether a prompt of these tokens ends within a thought: the last of the two marks begins one.
bool ends_in_thought(std::span<const int32_t> prompt, const ThinkBudget& budget);

}  // namespace wels
