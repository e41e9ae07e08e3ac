#include "apps/answer_view.h"

#include <algorithm>

namespace wels {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>", kSpace = " \t\r\n";
constexpr const char* kDim = "\033[2m";
constexpr const char* kUndim = "\033[0m";

}  // namespace

void AnswerView::begin_thinking() {
  state_ = State::kThinking;
  if (how_ == ShowThinking::kDimmed) show_(kDim);
}

void AnswerView::think(std::string_view text) {
  if (how_ != ShowThinking::kHidden && !text.empty()) show_(text);
}

void AnswerView::push(std::string_view text) {
  held_ += text;
  if (state_ == State::kBegin) {
    size_t at = std::min(held_.find_first_not_of(kSpace), held_.size());
    std::string_view word = std::string_view(held_).substr(at, kOpen.size());
    if (word != kOpen && kOpen.starts_with(word)) return;  // may become the tag
    if (word == kOpen) {
      begin_thinking();
    } else {
      state_ = State::kAnswer;
    }
  }
  if (state_ == State::kThinking) {
    size_t end = held_.find(kClose);
    if (end == std::string::npos) {
      size_t keep = std::min(held_.size(), kClose.size() - 1);
      while (!kClose.starts_with(std::string_view(held_).substr(held_.size() - keep))) --keep;
      think(std::string_view(held_).substr(0, held_.size() - keep));
      held_.erase(0, held_.size() - keep);
      return;
    }
    think(std::string_view(held_).substr(0, end + kClose.size()));
    if (how_ == ShowThinking::kDimmed) show_(kUndim);
    held_.erase(0, end + kClose.size());
    state_ = State::kAnswer;
    skip_space_ = how_ == ShowThinking::kHidden;
  }
  if (skip_space_) held_.erase(0, std::min(held_.find_first_not_of(kSpace), held_.size()));
  if (held_.empty()) return;
  skip_space_ = false;
  show_(held_);
  held_.clear();
}

void AnswerView::finish() {
  if (state_ == State::kThinking) {
    think(held_);
    if (how_ == ShowThinking::kDimmed) show_(kUndim);
  } else if (!held_.empty()) {
    show_(held_);
  }
  held_.clear();
}

}  // namespace wels
