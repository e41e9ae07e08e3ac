#include "engine/token_mask.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/check.h"
#include "base/error.h"

namespace wels {
namespace {

constexpr size_t kMostStates = 20'000, kMostStacks = 1'000'000;
constexpr int64_t kMostMasks = 2'000;  // 32 MB with 129,280 tokens
// A state has about as many stacks as rules can go on at once, at most one for every symbol, unless
// a text can be read in more and more ways: "=" root "b" | "=" root "c" doubles with every sign.
constexpr size_t kMostWays = 10'000;

[[noreturn]] void throw_ambiguous() {
  throw Error(kGrammarError,
              "is too ambiguous: a text can be read in more ways than can be followed",
              "let alternatives begin differently, or put what they have in common before them");
}

}  // namespace

TokenTree::TokenTree(const std::vector<std::string>& tokens) : bytes_(tokens) {
  for (size_t t = 0; t < tokens.size(); ++t) {
    if (!tokens[t].empty()) order_.push_back(static_cast<int32_t>(t));
  }
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int32_t a, int32_t b) { return bytes(a) < bytes(b); });
  std::vector<int32_t> open;  // the nodes above the place in the tree
  std::string_view before;
  auto close = [&](size_t depth) {
    while (open.size() > depth) {
      nodes_[static_cast<size_t>(open.back())].after = static_cast<int32_t>(nodes_.size());
      open.pop_back();
    }
  };
  for (size_t i = 0; i < order_.size(); ++i) {
    std::string_view text = bytes(order_[i]);
    size_t common = static_cast<size_t>(
        std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first - text.begin());
    close(common);
    for (size_t d = common; d < text.size(); ++d) {
      open.push_back(static_cast<int32_t>(nodes_.size()));
      int32_t at = static_cast<int32_t>(i);
      nodes_.push_back({static_cast<uint8_t>(text[d]), static_cast<int32_t>(d), 0, at, at});
    }
    nodes_[static_cast<size_t>(open.back())].tokens_end = static_cast<int32_t>(i) + 1;
    deepest_ = std::max(deepest_, static_cast<int32_t>(text.size()));
    before = text;
  }
  close(0);
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar,
                               std::shared_ptr<const TokenTree> tree)
    : grammar_(std::move(grammar)), tree_(std::move(tree)), stacks_(1) {
  State s;
  for (int32_t begin : grammar_->rules[static_cast<size_t>(grammar_->root)]) expand(begin, 0, s);
  current_ = state_of(std::move(s));
}

int32_t GrammarMatcher::intern(int32_t position, int32_t rest) {
  uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(position)) << 32 | static_cast<uint32_t>(rest);
  if (stacks_.size() > 2 * (kMostStacks + grammar_->symbols.size())) throw_ambiguous();
  auto [it, fresh] = stack_numbers_.try_emplace(key, static_cast<int32_t>(stacks_.size()));
  if (fresh) stacks_.push_back({position, rest});
  return it->second;
}

// Rules are opened until every stack goes on with a set of bytes. A rule at the end of another
// leaves nothing of that behind, so that repetitions do not grow the stack.
void GrammarMatcher::expand(int32_t position, int32_t rest, State& into) {
  std::vector<std::pair<int32_t, int32_t>> open{{position, rest}};
  std::set<std::pair<int32_t, int32_t>> seen(open.begin(), open.end());
  auto add = [&](int32_t p, int32_t r) {
    if (seen.insert({p, r}).second) open.push_back({p, r});
  };
  while (!open.empty()) {
    auto [at, after] = open.back();
    open.pop_back();
    int32_t symbol = grammar_->symbols[static_cast<size_t>(at)];
    if (symbol == Grammar::kEnd) {
      if (after == 0) {
        into.end = true;
      } else {
        Stack s = stacks_[static_cast<size_t>(after)];
        add(s.position, s.rest);
      }
    } else if (symbol < 0) {
      into.stacks.push_back(intern(at, after));
      if (into.stacks.size() > kMostStacks + grammar_->symbols.size()) throw_ambiguous();
    } else {
      bool last = grammar_->symbols[static_cast<size_t>(at) + 1] == Grammar::kEnd;
      int32_t below = last ? after : intern(at + 1, after);
      for (int32_t begin : grammar_->rules[static_cast<size_t>(symbol)]) add(begin, below);
    }
  }
}

int32_t GrammarMatcher::state_of(State s) {
  std::sort(s.stacks.begin(), s.stacks.end());
  s.stacks.erase(std::unique(s.stacks.begin(), s.stacks.end()), s.stacks.end());
  size_t symbols = grammar_->symbols.size();
  if (s.stacks.size() > kMostWays + symbols || held_ > 2 * (kMostStacks + symbols))
    throw_ambiguous();
  auto [it, fresh] =
      state_numbers_.try_emplace({s.stacks, s.end}, static_cast<int32_t>(states_.size()));
  if (!fresh) return it->second;
  held_ += s.stacks.size();
  states_.push_back(std::move(s));
  return it->second;
}

int32_t GrammarMatcher::step(int32_t state, uint8_t byte) {
  State& from = states_[static_cast<size_t>(state)];
  if (!from.next) {
    from.next = std::make_unique<std::array<int32_t, 256>>();
    from.next->fill(kUnknown);
  }
  int32_t known = (*from.next)[byte];
  if (known != kUnknown) return known;
  State to;
  for (int32_t stack : from.stacks) {
    Stack s = stacks_[static_cast<size_t>(stack)];
    int32_t set = -2 - grammar_->symbols[static_cast<size_t>(s.position)];
    if (grammar_->sets[static_cast<size_t>(set)].has(byte)) expand(s.position + 1, s.rest, to);
  }
  int32_t number = to.stacks.empty() && !to.end ? kDead : state_of(std::move(to));
  (*states_[static_cast<size_t>(state)].next)[byte] = number;  // state_of may have moved the states
  return number;
}

void GrammarMatcher::work_out_mask(int32_t state) {
  std::vector<uint64_t> mask(static_cast<size_t>((tree_->vocab_size() + 63) / 64));
  std::vector<int32_t> path(static_cast<size_t>(tree_->deepest_) + 1);
  path[0] = state;
  const auto& nodes = tree_->nodes_;
  for (size_t i = 0; i < nodes.size();) {
    const TokenTree::Node& node = nodes[i];
    int32_t to = step(path[static_cast<size_t>(node.depth)], node.byte);
    if (to == kDead) {
      i = static_cast<size_t>(node.after);
      continue;
    }
    path[static_cast<size_t>(node.depth) + 1] = to;
    for (int32_t t = node.tokens; t < node.tokens_end; ++t) {
      int32_t token = tree_->order_[static_cast<size_t>(t)];
      mask[static_cast<size_t>(token >> 6)] |= uint64_t{1} << (token & 63);
    }
    ++i;
  }
  states_[static_cast<size_t>(state)].mask = std::move(mask);
  ++masks_;
}

// What was remembered goes, the stacks of the current state stay.
void GrammarMatcher::forget() {
  std::vector<Stack> old = std::move(stacks_);
  State s;
  s.end = states_[static_cast<size_t>(current_)].end;
  std::vector<int32_t> kept = states_[static_cast<size_t>(current_)].stacks;
  stacks_.assign(1, {});
  stack_numbers_.clear();
  states_.clear();
  state_numbers_.clear();
  masks_ = 0;
  held_ = 0;
  for (int32_t stack : kept) {
    std::vector<int32_t> positions;  // from the innermost
    for (int32_t i = stack; i != 0; i = old[static_cast<size_t>(i)].rest)
      positions.push_back(old[static_cast<size_t>(i)].position);
    int32_t made = 0;
    for (size_t i = positions.size(); i-- > 0;) made = intern(positions[i], made);
    s.stacks.push_back(made);
  }
  current_ = state_of(std::move(s));
}

bool GrammarMatcher::holds_much() const {
  return states_.size() > kMostStates || stacks_.size() > kMostStacks ||
         held_ > kMostStacks + grammar_->symbols.size() || masks_ > kMostMasks;
}

std::span<const uint64_t> GrammarMatcher::allowed() {
  if (states_[static_cast<size_t>(current_)].mask.empty()) {
    if (holds_much()) forget();
    work_out_mask(current_);
  }
  return states_[static_cast<size_t>(current_)].mask;
}

bool GrammarMatcher::can_end() const { return states_[static_cast<size_t>(current_)].end; }

bool GrammarMatcher::accept(int32_t token) {
  CHECK(token >= 0 && token < tree_->vocab_size());
  const std::string& bytes = tree_->bytes(token);
  if (bytes.empty()) return false;
  int32_t state = current_;
  for (char c : bytes) {
    state = step(state, static_cast<uint8_t>(c));
    if (state == kDead) return false;
  }
  current_ = state;
  return true;
}

}  // namespace wels
