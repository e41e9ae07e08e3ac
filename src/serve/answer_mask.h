// AnswerMask: what an answer is held to, token by token: reasoning of a limited length, then a
// grammar (response_format), or calls of given tools (tool_choice).
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/token_mask.h"
#include "text/tokenizer.h"

namespace wels {

// A part of an answer: these very tokens, then text that fits the grammar; then, if there are
// branches, the parts that belong to the text.
struct AnswerPart {
  std::vector<int32_t> tokens;
  std::shared_ptr<const Grammar> grammar;  // null: none
  std::vector<std::pair<std::string, std::vector<AnswerPart>>> branches = {};
};

struct AnswerPlan {
  Tokenizer tokenizer;
  int64_t vocab_size;                           // of the model
  bool thinking = false;                        // the answer begins inside the reasoning
  std::optional<int64_t> thinking_budget = {};  // tokens of it at most
  std::vector<int32_t> thinking_end = {};       // the tokens of </think>
  std::vector<AnswerPart> parts = {};           // after the reasoning; none: anything goes
  // The answer is free until this token, with which the first part begins; -1: parts from the
  // beginning.
  int32_t parts_from = -1;
  std::vector<int32_t> stop_ids = {};               // may come when the last part can end
  std::shared_ptr<const TokenTree> tree = nullptr;  // where there are grammars
};

class AnswerMask {
 public:
  explicit AnswerMask(std::shared_ptr<const AnswerPlan> plan);
  // As GenerateRequest::mask: empty means that every token may come.
  std::span<const uint64_t> mask(std::span<const int32_t> answer);

 private:
  void follow(int32_t token);
  void follow_thinking(int32_t token);
  void enter_part();
  void leave_part();
  int32_t next_forced() const;  // the token that the next part begins with; -1: none
  void allow(int32_t token);

  std::shared_ptr<const AnswerPlan> plan_;
  std::vector<AnswerPart> parts_;  // still to come, the present one first
  bool thinking_, free_;
  int64_t thought_tokens_ = 0;
  size_t closing_ = 0;  // tokens of thinking_end that have been forced
  std::string tail_;    // of the reasoning, in which </think> may have begun
  size_t forced_ = 0;   // tokens of the present part that have come
  std::optional<GrammarMatcher> matcher_;
  std::string said_;  // by the present grammar
  size_t followed_ = 0;
  std::vector<uint64_t> mask_;
};

}  // namespace wels
