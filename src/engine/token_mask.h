// Which tokens may follow, so that the text stays one that the grammar can complete.
//
// The bytes so far are followed through the grammar as a set of stacks (what is to come, innermost
// first) that share their lower parts. Equal sets are one state, and what a byte does to a state is
// remembered, so that the grammar becomes an automaton of the states that texts really reach. The
// mask of a state comes from one walk over the vocabulary as a tree of bytes: a subtree is left
// where its first byte does not fit.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/grammar.h"

namespace wels {

// Error::where() of what only shows while tokens are generated: that a grammar is too ambiguous.
inline constexpr const char* kGrammarError = "grammar";

// The bytes of every token as a tree, in depth-first order. One for a model, shared by all
// requests.
class TokenTree {
 public:
  // bytes of each token; empty: the token is never part of a text (special tokens).
  explicit TokenTree(const std::vector<std::string>& tokens);
  int64_t vocab_size() const { return static_cast<int64_t>(bytes_.size()); }
  const std::string& bytes(int32_t token) const { return bytes_[static_cast<size_t>(token)]; }

 private:
  friend class GrammarMatcher;
  struct Node {
    uint8_t byte;
    int32_t depth;               // 0: one byte long
    int32_t after;               // the next node that is not below this one
    int32_t tokens, tokens_end;  // in order_: the tokens that end here
  };
  std::vector<std::string> bytes_;
  std::vector<Node> nodes_;
  std::vector<int32_t> order_;
  int32_t deepest_ = 0;
};

// The state of one request.
class GrammarMatcher {
 public:
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTree> tree);

  // Bit t: token t may be next. Valid until the next call. Throws Error, as the constructor and
  // accept do, where the grammar has too many ways to read the text.
  std::span<const uint64_t> allowed();
  // Whether the text may end here: then stop tokens are allowed, else not.
  bool can_end() const;
  // The text goes on with this token. False, and the state stays, where the grammar forbids it.
  bool accept(int32_t token);

 private:
  // A stack: where it goes on in Grammar::symbols, and what comes after that rule. Equal stacks are
  // one node. 0: nothing is left.
  struct Stack {
    int32_t position, rest;
  };
  struct State {
    std::vector<int32_t> stacks;  // sorted; each goes on with a set of bytes
    bool end = false;             // nothing may be left
    std::unique_ptr<std::array<int32_t, 256>> next;
    std::vector<uint64_t> mask;  // empty: not worked out
  };
  static constexpr int32_t kUnknown = -1, kDead = -2;

  // These four throw Error where the grammar is too ambiguous to follow.
  int32_t intern(int32_t position, int32_t rest);
  void expand(int32_t position, int32_t rest, State& into);
  int32_t state_of(State s);
  int32_t step(int32_t state, uint8_t byte);
  void work_out_mask(int32_t state);
  void forget();
  bool holds_much() const;

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTree> tree_;
  std::vector<Stack> stacks_;
  std::unordered_map<uint64_t, int32_t> stack_numbers_;
  std::vector<State> states_;
  std::map<std::pair<std::vector<int32_t>, bool>, int32_t> state_numbers_;
  size_t held_ = 0;  // stacks of all states
  int64_t masks_ = 0;
  int32_t current_ = 0;
};

}  // namespace wels
