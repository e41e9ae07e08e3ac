#include "serve/answer_mask.h"

#include "base/check.h"
#include "text/markers.h"

namespace wels {

AnswerMask::AnswerMask(std::shared_ptr<const AnswerPlan> plan)
    : plan_(std::move(plan)),
      parts_(plan_->parts),
      thinking_(plan_->thinking),
      free_(plan_->parts_from >= 0) {
  enter_part();
}

// A part without tokens goes straight to its grammar.
void AnswerMask::enter_part() {
  matcher_.reset();
  said_.clear();
  forced_ = 0;
  if (!parts_.empty() && parts_[0].tokens.empty() && parts_[0].grammar)
    matcher_.emplace(parts_[0].grammar, plan_->tree);
}

void AnswerMask::leave_part() {
  AnswerPart part = std::move(parts_.front());
  parts_.erase(parts_.begin());
  for (auto& [text, then] : part.branches) {
    if (text == said_) parts_.insert(parts_.begin(), then.begin(), then.end());
  }
  enter_part();
}

int32_t AnswerMask::next_forced() const {
  const AnswerPart& part = parts_.front();
  for (const auto& [text, then] : part.branches) {
    if (text == said_) return then.empty() ? -1 : then[0].tokens.at(0);
  }
  return parts_.size() < 2 || parts_[1].tokens.empty() ? -1 : parts_[1].tokens[0];
}

void AnswerMask::follow_thinking(int32_t token) {
  ++thought_tokens_;
  if (plan_->thinking_budget && thought_tokens_ > *plan_->thinking_budget) ++closing_;
  tail_ += plan_->tokenizer.token_bytes(token);
  thinking_ = tail_.find(kThinkEnd) == std::string::npos;
  if (tail_.size() > kThinkEnd.size()) tail_.erase(0, tail_.size() - kThinkEnd.size());
}

void AnswerMask::follow(int32_t token) {
  if (thinking_) return follow_thinking(token);
  if (free_) free_ = token != plan_->parts_from;
  if (free_ || parts_.empty()) return;
  if (!matcher_) {  // forced
    if (++forced_ < parts_[0].tokens.size()) return;
    if (!parts_[0].grammar) return leave_part();
    matcher_.emplace(parts_[0].grammar, plan_->tree);
    return;
  }
  if (matcher_->can_end() && token == next_forced()) {
    leave_part();
    return follow(token);
  }
  CHECK(matcher_->accept(token));
  said_ += plan_->tree->bytes(token);
}

void AnswerMask::allow(int32_t token) {
  mask_[static_cast<size_t>(token >> 6)] |= uint64_t{1} << (token & 63);
}

std::span<const uint64_t> AnswerMask::mask(std::span<const int32_t> answer) {
  CHECK(answer.size() >= followed_);
  for (; followed_ < answer.size(); ++followed_) follow(answer[followed_]);
  mask_.assign(static_cast<size_t>((plan_->vocab_size + 63) / 64), 0);
  if (thinking_) {
    if (!plan_->thinking_budget || thought_tokens_ < *plan_->thinking_budget) return {};
    // The reasoning's last token may have begun the tag; then it is only completed twice as long.
    allow(plan_->thinking_end[std::min(closing_, plan_->thinking_end.size() - 1)]);
    return mask_;
  }
  if (plan_->parts.empty() || free_) return {};
  if (parts_.empty()) {  // everything has been said
    for (int32_t t : plan_->stop_ids) allow(t);
  } else if (!matcher_) {
    allow(parts_[0].tokens[forced_]);
  } else {
    std::span<const uint64_t> allowed = matcher_->allowed();
    mask_.assign(allowed.begin(), allowed.end());
    if (matcher_->can_end()) {
      int32_t next = next_forced();
      if (next >= 0) allow(next);
      if (next < 0) {
        for (int32_t t : plan_->stop_ids) allow(t);
      }
    }
  }
  return mask_;
}

}  // namespace wels
