#include "engine/grammar_builder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace wels {

std::vector<CharSpan> all_but(std::vector<CharSpan> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<CharSpan> out;
  uint32_t next = 0;
  for (CharSpan r : ranges) {
    if (r.first > next) out.push_back({next, r.first - 1});
    next = std::max(next, r.second + 1);
  }
  if (next <= kLastChar) out.push_back({next, kLastChar});
  return out;
}

int32_t GrammarBuilder::new_rule() {
  rules_.emplace_back();
  return static_cast<int32_t>(rules_.size()) - 1;
}

void GrammarBuilder::count(size_t symbols) {
  symbols_ += symbols + 1;
  if (symbols_ > Grammar::kMostSymbols)
    throw Error(where_, fmt::format("has more than {} symbols", Grammar::kMostSymbols),
                "use smaller bounds on repetitions");
}

void GrammarBuilder::define(int32_t rule, std::vector<Sequence> alternatives) {
  for (const Sequence& s : alternatives) count(s.size());
  rules_[static_cast<size_t>(rule)] = std::move(alternatives);
}

int32_t GrammarBuilder::set_symbol(const ByteSet& s) {
  auto [it, fresh] = set_numbers_.try_emplace(s.bits, static_cast<int32_t>(sets_.size()));
  if (fresh) sets_.push_back(s);
  return -2 - it->second;
}

GrammarBuilder::Sequence GrammarBuilder::text(std::string_view bytes) {
  Sequence out;
  for (char c : bytes) {
    ByteSet s;
    s.add(static_cast<uint8_t>(c), static_cast<uint8_t>(c));
    out.push_back(set_symbol(s));
  }
  count(out.size());
  return out;
}

namespace {

int utf8_length(uint32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

void put_utf8(uint32_t c, uint8_t* out) {
  int n = utf8_length(c);
  for (int i = n - 1; i > 0; --i, c >>= 6) out[i] = static_cast<uint8_t>(0x80 | (c & 0x3f));
  out[0] = static_cast<uint8_t>(n == 1 ? c : c | (0xf00 >> n & 0xff));
}

}  // namespace

// Characters of one length in UTF-8 as alternatives of byte ranges: where first and last differ in
// their leading bytes, the ends are split off until the rest covers whole blocks.
void GrammarBuilder::add_utf8(std::vector<Sequence>& out, uint32_t first, uint32_t last) {
  for (uint32_t end : {0x7fu, 0x7ffu, 0xffffu}) {
    if (first <= end && last > end) {
      add_utf8(out, first, end);
      return add_utf8(out, end + 1, last);
    }
  }
  int n = utf8_length(first);
  for (int i = 1; i < n; ++i) {
    uint32_t mask = (1u << (6 * i)) - 1;  // of the last i bytes
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      add_utf8(out, first, first | mask);
      return add_utf8(out, (first | mask) + 1, last);
    }
    if ((last & mask) != mask) {
      add_utf8(out, first, (last & ~mask) - 1);
      return add_utf8(out, last & ~mask, last);
    }
  }
  uint8_t a[4], b[4];
  put_utf8(first, a);
  put_utf8(last, b);
  Sequence s;
  for (int i = 0; i < n; ++i) {
    ByteSet set;
    set.add(a[i], b[i]);
    s.push_back(set_symbol(set));
  }
  out.push_back(std::move(s));
}

namespace {

constexpr CharSpan kSurrogates{0xD800, 0xDFFF};  // no characters

void cut_surrogates(std::vector<CharSpan>& ranges) {
  for (size_t i = 0, n = ranges.size(); i < n; ++i) {
    CharSpan& r = ranges[i];
    if (r.first > kSurrogates.second || r.second < kSurrogates.first) continue;
    CharSpan above{std::max(r.first, kSurrogates.second + 1), r.second};
    r.second = std::min(r.second, kSurrogates.first - 1);
    if (above.first <= above.second) ranges.push_back(above);
  }
  std::erase_if(ranges, [](CharSpan r) { return r.first > r.second; });
}

}  // namespace

GrammarBuilder::Sequence GrammarBuilder::one_of(std::vector<CharSpan> ranges) {
  for (CharSpan r : ranges) CHECK(r.first <= r.second && r.second <= kLastChar);
  cut_surrogates(ranges);
  std::sort(ranges.begin(), ranges.end());
  std::vector<CharSpan> joined;
  for (CharSpan r : ranges) {
    if (!joined.empty() && r.first <= joined.back().second + 1) {
      joined.back().second = std::max(joined.back().second, r.second);
    } else {
      joined.push_back(r);
    }
  }
  ByteSet ascii;
  std::vector<Sequence> alternatives;
  for (CharSpan r : joined) {
    if (r.first < 0x80)
      ascii.add(static_cast<uint8_t>(r.first),
                static_cast<uint8_t>(std::min<uint32_t>(r.second, 0x7f)));
    if (r.second >= 0x80) add_utf8(alternatives, std::max<uint32_t>(r.first, 0x80), r.second);
  }
  if (ascii != ByteSet()) alternatives.insert(alternatives.begin(), {set_symbol(ascii)});
  return any_of(std::move(alternatives));
}

GrammarBuilder::Sequence GrammarBuilder::none_of(std::vector<CharSpan> ranges) {
  return one_of(all_but(std::move(ranges)));
}

GrammarBuilder::Sequence GrammarBuilder::any_of(std::vector<Sequence> alternatives) {
  if (alternatives.size() == 1) return alternatives[0];
  int32_t r = new_rule();
  define(r, std::move(alternatives));
  return {r};
}

GrammarBuilder::Sequence GrammarBuilder::join(std::vector<Sequence> parts) {
  Sequence out;
  for (const Sequence& p : parts) out.insert(out.end(), p.begin(), p.end());
  return out;
}

// x{least} and then either x* or up to most - least more, each of which may end it: x (x (x)?)?.
GrammarBuilder::Sequence GrammarBuilder::repeat(const Sequence& x, int64_t least, int64_t most) {
  CHECK(least >= 0 && (most == kUnbounded || most >= least));
  Sequence one = x, out;
  if (x.size() > 1) {
    one = {new_rule()};
    define(one[0], {x});
  }
  auto again = [&](int64_t n) {
    count(static_cast<size_t>(n) * one.size());
    for (int64_t i = 0; i < n; ++i) out.insert(out.end(), one.begin(), one.end());
  };
  if (most == kUnbounded) {
    again(least);
    int32_t more = new_rule();
    define(more, {join({one, {more}}), {}});
    out.push_back(more);
    return out;
  }
  again(least);
  Sequence tail;
  for (int64_t i = least; i < most; ++i) {
    int32_t r = new_rule();
    define(r, {join({one, tail}), {}});
    tail = {r};
  }
  return join({out, tail});
}

namespace {

// Per rule: whether it matches the empty text, and whether it matches any.
struct Properties {
  std::vector<bool> empty, some;
  explicit Properties(const std::vector<std::vector<GrammarBuilder::Sequence>>& rules)
      : empty(rules.size()), some(rules.size()) {
    auto all = [](const GrammarBuilder::Sequence& s, const std::vector<bool>& of, bool terminal) {
      return std::all_of(s.begin(), s.end(), [&](int32_t x) {
        return x < 0 ? terminal : static_cast<bool>(of[static_cast<size_t>(x)]);
      });
    };
    bool forward = false;  // both ways in turn, so that chains of rules take few rounds
    for (bool changed = true; changed;) {
      changed = false;
      forward = !forward;
      for (size_t i = 0; i < rules.size(); ++i) {
        size_t r = forward ? i : rules.size() - 1 - i;
        for (const auto& s : rules[r]) {
          if (!empty[r] && all(s, empty, false)) changed = empty[r] = true;
          if (!some[r] && all(s, some, true)) changed = some[r] = true;
        }
      }
    }
  }
};

// Finds a rule that may begin with itself and something after it: it could be expanded for ever.
// (A rule that may only be followed by itself, as x* of an x that may be empty, is harmless.)
class LeftRecursion {
 public:
  LeftRecursion(const std::vector<std::vector<GrammarBuilder::Sequence>>& rules,
                const std::vector<bool>& empty)
      : edges_(rules.size()), order_(rules.size(), 0), low_(rules.size(), 0), on_(rules.size()) {
    for (size_t r = 0; r < rules.size(); ++r) {
      for (const auto& s : rules[r]) {
        for (size_t i = 0; i < s.size() && s[i] >= 0; ++i) {
          edges_[r].push_back({static_cast<size_t>(s[i]), i + 1 < s.size()});
          if (!empty[static_cast<size_t>(s[i])]) break;
        }
      }
    }
  }
  // -1: none.
  int32_t find() {
    for (size_t r = 0; r < edges_.size(); ++r) {
      if (order_[r] == 0) components(r);
    }
    for (size_t r = 0; r < edges_.size(); ++r) {
      for (auto [to, more] : edges_[r]) {
        if (more && low_[to] == low_[r]) return static_cast<int32_t>(r);
      }
    }
    return -1;
  }

 private:
  // Tarjan's strongly connected components without recursion; low_ ends as the component's number.
  void components(size_t start) {
    std::vector<std::pair<size_t, size_t>> path{{start, 0}};
    enter(start);
    while (!path.empty()) {
      auto& [r, next] = path.back();
      if (next < edges_[r].size()) {
        size_t to = edges_[r][next++].first;
        if (order_[to] == 0) {
          enter(to);
          path.push_back({to, 0});
        } else if (on_[to]) {
          low_[r] = std::min(low_[r], order_[to]);
        }
        continue;
      }
      size_t done = r;
      path.pop_back();
      if (!path.empty()) low_[path.back().first] = std::min(low_[path.back().first], low_[done]);
      if (low_[done] != order_[done]) continue;
      for (size_t x = edges_.size(); x != done;) {
        x = stack_.back();
        stack_.pop_back();
        on_[x] = false;
        low_[x] = order_[done];
      }
    }
  }
  void enter(size_t r) {
    order_[r] = low_[r] = ++counter_;
    stack_.push_back(r);
    on_[r] = true;
  }
  std::vector<std::vector<std::pair<size_t, bool>>> edges_;
  std::vector<int64_t> order_, low_;
  std::vector<bool> on_;
  std::vector<size_t> stack_;
  int64_t counter_ = 0;
};

}  // namespace

Grammar GrammarBuilder::finish(int32_t root, const std::map<int32_t, std::string>& names) {
  Properties p(rules_);
  auto named = [&](int32_t r) {  // rules without a name belong to the one that was begun before
    auto it = names.upper_bound(r);
    return it == names.begin() ? "the grammar" : "rule \"" + std::prev(it)->second + "\"";
  };
  for (size_t r = 0; r < rules_.size(); ++r) {
    if (!p.some[r])
      throw Error(where_, named(static_cast<int32_t>(r)) + " matches no text",
                  "give it an alternative that ends");
  }
  if (int32_t r = LeftRecursion(rules_, p.empty).find(); r >= 0)
    throw Error(where_, named(r) + " begins with itself",
                "write repetitions with * or with the rule at the end");
  Grammar g;
  g.root = root;
  g.sets = std::move(sets_);
  for (const auto& alternatives : rules_) {
    g.rules.emplace_back();
    for (const Sequence& s : alternatives) {
      g.rules.back().push_back(static_cast<int32_t>(g.symbols.size()));
      g.symbols.insert(g.symbols.end(), s.begin(), s.end());
      g.symbols.push_back(Grammar::kEnd);
    }
  }
  return g;
}

}  // namespace wels
