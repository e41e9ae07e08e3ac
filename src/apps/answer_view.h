// AnswerView: shows an answer as it comes, with its reasoning (<think>...</think> at the beginning)
// dimmed, plain, hidden, or folded into a line that says how long it took (a terminal's), and how
// it is unfolded.
#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "engine/sampler.h"
#include "text/tokenizer.h"

namespace wels {

// A token in a line, "the" -0.1234, and behind it the most probable ones that it was told with.
std::string logprob_line(const Tokenizer& tokenizer, const SampledToken& token);

// What a model or a server of someone else says must not command the terminal: control characters
// are shown as their pictures (␛), those beyond ASCII as U+FFFD, carriage returns not at all.
std::string for_terminal(std::string_view text);

enum class ShowThinking { kPlain, kDimmed, kHidden, kFolded };  // dimmed, folded: on a terminal
// What standard output is fit for.
ShowThinking show_thinking(bool hide);

class AnswerView {
 public:
  // unfold: what shows folded reasoning; empty: nothing does.
  AnswerView(ShowThinking how, std::function<void(std::string_view)> show, std::string unfold = {})
      : how_(how), show_(std::move(show)), unfold_(std::move(unfold)) {}

  // Pieces may end between any characters, within a tag too. A terminal gets no commands.
  void push(std::string_view text);
  void finish();
  bool thinking() const { return state_ == State::kThinking; }  // the reasoning has not ended
  const std::string& thought() const { return thought_; }       // with its tags

 private:
  enum class State { kBegin, kThinking, kAnswer };
  void begin_thinking();
  void think(std::string_view text);
  void end_thinking();
  ShowThinking how_;
  std::function<void(std::string_view)> show_;
  std::string unfold_;
  State state_ = State::kBegin;
  std::string thought_;
  double begun_s_ = 0;
  std::string held_;  // may become a tag, or is space before hidden reasoning's answer
  bool skip_space_ = false;
};

// Breaks lines between words where they would not fit into so many columns (0: never), for a
// terminal whose tabs go to every eighth one. Pieces end between characters.
class WordWrap {
 public:
  WordWrap(int columns, std::function<void(std::string_view)> show)
      : columns_(columns), show_(std::move(show)) {}
  void push(std::string_view text);
  void finish();  // shows what is held

 private:
  void place();
  int columns_, column_ = 0, width_ = 0;  // width_: of the word
  bool escape_ = false;                   // within a terminal's escape sequence
  std::string word_;
  std::function<void(std::string_view)> show_;
};

// Columns of standard output; 0: it is no terminal.
int output_columns();

}  // namespace wels
