// AnswerView: shows an answer as it comes, with its reasoning (<think>...</think> at the beginning)
// dimmed, plain or hidden.
#pragma once
#include <functional>
#include <string>
#include <string_view>

namespace wels {

enum class ShowThinking { kPlain, kDimmed, kHidden };

class AnswerView {
 public:
  AnswerView(ShowThinking how, std::function<void(std::string_view)> show)
      : how_(how), show_(std::move(show)) {}

  // Pieces may end anywhere, within a tag too.
  void push(std::string_view text);
  void finish();
  bool thinking() const { return state_ == State::kThinking; }  // the reasoning has not ended

 private:
  enum class State { kBegin, kThinking, kAnswer };
  void begin_thinking();
  void think(std::string_view text);
  ShowThinking how_;
  std::function<void(std::string_view)> show_;
  State state_ = State::kBegin;
  std::string held_;  // may become a tag, or is space before hidden reasoning's answer
  bool skip_space_ = false;
};

}  // namespace wels
