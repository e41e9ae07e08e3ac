#include "engine/answer_lengths.h"

#include <algorithm>
#include <limits>

namespace wels {

void AnswerLengths::add(int64_t tokens, bool cut) {
  const int64_t length = cut ? std::numeric_limits<int64_t>::max() : tokens;
  if (lengths_.size() < kKept) {
    lengths_.push_back(length);
  } else {
    lengths_[next_] = length;
    next_ = (next_ + 1) % kKept;
  }
}

int64_t AnswerLengths::expected(int64_t answered, int64_t most) const {
  if (lengths_.empty() || answered >= most) return most;
  int64_t n = 0, sum = 0;
  for (int64_t length : lengths_) {
    if (length <= answered) continue;
    ++n;
    sum += std::min(length, most);
  }
  return n > 0 ? (sum + n - 1) / n : std::min(most, 2 * answered);
}

}  // namespace wels
