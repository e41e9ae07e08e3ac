// AnswerParser: the text that a model writes → reasoning, answer and tool calls, piece by piece as
// it comes. The other direction of text/chat.h.
//
//   <think> reasoning </think> answer <｜tool▁calls▁begin｜> calls <｜tool▁calls▁end｜>
//
// The template may have opened <think> already. A call is, by the templates' generation,
//   V3, R1-0528
//   <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n{...}\n```<｜tool▁call▁end｜> V3.1
//   <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜>
// and both are understood always. Line breaks around reasoning and before the answer are not part
// of them.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

struct AnswerPiece {
  enum Kind { kReasoning, kContent, kToolName, kToolArguments } kind;
  std::string text;  // kToolName: a call begins, this is its whole name
  bool operator==(const AnswerPiece&) const = default;
};

class AnswerParser {
 public:
  struct Options {
    bool thinking = false;  // the prompt ended inside <think>
    bool tools = false;     // markers of tool calls mean calls; else they are text
  };
  explicit AnswerParser(Options options)
      : tools_(options.tools), state_(options.thinking ? State::kReasoning : State::kBegin) {}

  // Text that may end anywhere, within a marker too. Pieces are appended; their texts joined by
  // kind and call don't depend on where the text was cut.
  void push(std::string_view text, std::vector<AnswerPiece>& out);
  // The end: what was held back because it might have become a marker.
  void finish(std::vector<AnswerPiece>& out);

  bool thinking() const { return state_ == State::kReasoning; }  // the reasoning has not ended
  int calls() const { return calls_; }
  // What parts are told by: special tokens in some vocabularies, which must be shown as text here.
  static std::span<const std::string_view> markers();
  bool calls_ended() const { return state_ == State::kEnd && calls_ > 0; }  // all of them

 private:
  enum class State {
    kBegin,
    kReasoning,
    kContent,
    kCalls,
    kHeader,
    kSep,
    kName,
    kFence,
    kArguments,
    kEnd
  };
  using Out = std::vector<AnswerPiece>;
  bool step(Out& out);  // false: more text is needed
  bool begin();
  bool reasoning(Out& out);
  bool content(Out& out);
  bool between_calls();
  bool header();
  bool after_sep(Out& out);
  bool name(Out& out);
  bool fence();
  bool arguments(Out& out);
  void give(Out& out, AnswerPiece::Kind kind, size_t n);
  void drop(size_t n) { held_.erase(0, n); }

  bool tools_;
  State state_;
  std::string held_, head_;
  bool said_ = false;  // of this reasoning or answer: line breaks before are dropped
  int calls_ = 0;
};

// The longest end of `text` that is a beginning of `marker`, not all of it.
size_t partial_end(std::string_view text, std::string_view marker);

}  // namespace wels
