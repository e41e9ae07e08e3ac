// What the notations of grammars have in common: rules are made from the inside out as expressions,
// and checked once all are there.
#pragma once
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "engine/grammar.h"

namespace wels {

// Unicode characters [first, last].
using CharSpan = std::pair<uint32_t, uint32_t>;
inline constexpr uint32_t kLastChar = 0x10FFFF;
// All code points that no range holds.
std::vector<CharSpan> all_but(std::vector<CharSpan> ranges);

class GrammarBuilder {
 public:
  // A right-hand side, or a part of one.
  using Sequence = std::vector<int32_t>;
  static constexpr int64_t kUnbounded = -1;

  // where: begins the messages of errors.
  explicit GrammarBuilder(std::string where) : where_(std::move(where)) {}

  int32_t new_rule();  // without alternatives: to be defined
  void define(int32_t rule, std::vector<Sequence> alternatives);

  Sequence text(std::string_view bytes);
  // A character. Surrogates are none, and left out of any range.
  Sequence one_of(std::vector<CharSpan> ranges);
  Sequence none_of(std::vector<CharSpan> ranges);  // any character but these
  Sequence any_of(std::vector<Sequence> alternatives);
  // x least to most times; most may be kUnbounded.
  Sequence repeat(const Sequence& x, int64_t least, int64_t most);
  Sequence rule(int32_t r) { return {r}; }
  static Sequence join(std::vector<Sequence> parts);

  // The grammar whose texts are those of `root`. Throws Error: left recursion, rules that match no
  // text; `name` says what to call a rule in messages.
  Grammar finish(int32_t root, const std::map<int32_t, std::string>& names);

 private:
  int32_t set_symbol(const ByteSet& s);
  void add_utf8(std::vector<Sequence>& out, uint32_t first, uint32_t last);
  void count(size_t symbols);
  std::string where_;
  size_t symbols_ = 0;
  std::vector<std::vector<Sequence>> rules_;
  std::vector<ByteSet> sets_;
  std::map<std::array<uint64_t, 4>, int32_t> set_numbers_;
};

}  // namespace wels
