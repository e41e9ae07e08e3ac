#include "engine/json_chars.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "formats/json.h"

namespace wels {

using Sequence = GrammarBuilder::Sequence;

uint32_t first_char(std::string_view utf8, size_t& length) {
  auto c = static_cast<uint8_t>(utf8[0]);
  length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
  length = std::min(length, utf8.size());
  uint32_t value = length == 1 ? c : c & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) value = value << 6 | (static_cast<uint8_t>(utf8[i]) & 0x3f);
  return value;
}

bool is_json_plain(uint32_t c) { return c >= 0x20 && c != '"' && c != '\\'; }

Sequence json_plain_char(GrammarBuilder& b, std::vector<CharSpan> without) {
  without.insert(without.end(), {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}, {0x7f, 0x7f}});
  return b.none_of(std::move(without));
}

namespace {

Sequence hex(GrammarBuilder& b) { return b.one_of({{'0', '9'}, {'a', 'f'}, {'A', 'F'}}); }

}  // namespace

// \u escapes stand for one character each: halves of a surrogate pair are left out.
Sequence json_string_char(GrammarBuilder& b) {
  Sequence digit = hex(b);
  Sequence low = b.join({b.one_of({{'0', '9'}, {'a', 'c'}, {'A', 'C'}, {'e', 'f'}, {'E', 'F'}}),
                         digit, digit, digit});
  Sequence high =
      b.join({b.one_of({{'d', 'd'}, {'D', 'D'}}), b.one_of({{'0', '7'}}), digit, digit});
  Sequence simple = b.one_of({{'"', '"'},
                              {'\\', '\\'},
                              {'/', '/'},
                              {'b', 'b'},
                              {'f', 'f'},
                              {'n', 'n'},
                              {'r', 'r'},
                              {'t', 't'}});
  Sequence escape =
      b.join({b.text("\\"), b.any_of({simple, b.join({b.text("u"), b.any_of({low, high})})})});
  return b.any_of({json_plain_char(b), escape});
}

namespace {

// Characters of `ranges` as a JSON string writes them.
Sequence json_one_of(GrammarBuilder& b, const std::vector<CharSpan>& ranges) {
  std::vector<CharSpan> plain;
  std::vector<Sequence> out;
  auto has = [&](uint32_t c) {
    return std::any_of(ranges.begin(), ranges.end(),
                       [c](CharSpan r) { return r.first <= c && c <= r.second; });
  };
  auto add_plain = [&](uint32_t first, uint32_t last) {
    for (CharSpan r : ranges) {
      uint32_t a = std::max(first, r.first), z = std::min(last, r.second);
      if (a <= z) plain.push_back({a, z});
    }
  };
  add_plain(0x20, '"' - 1);
  add_plain('"' + 1, '\\' - 1);
  add_plain('\\' + 1, 0xD7FF);
  add_plain(0xE000, kLastChar);
  if (!plain.empty()) out.push_back(b.one_of(plain));
  static constexpr std::pair<char, const char*> kShort[] = {
      {'"', "\\\""}, {'\\', "\\\\"}, {'\b', "\\b"}, {'\f', "\\f"},
      {'\n', "\\n"}, {'\r', "\\r"},  {'\t', "\\t"}};
  for (auto [c, escape] : kShort) {
    if (has(static_cast<uint32_t>(c))) out.push_back(b.text(escape));
  }
  for (uint32_t c = 0; c < 0x20; ++c) {
    bool is_short = c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t';
    if (!is_short && has(c)) out.push_back(b.text(fmt::format("\\u{:04x}", c)));
  }
  return b.any_of(std::move(out));
}

class RegexParser {
 public:
  RegexParser(GrammarBuilder& b, std::string_view text, const std::string& where)
      : b_(b), text_(text), where_(where) {}

  Sequence parse() {
    bool begin = take('^');
    Sequence anything = b_.repeat(json_string_char(b_), 0, GrammarBuilder::kUnbounded);
    Sequence inner = alternatives(0);
    if (more()) fail("a parenthesis is not opened");
    return b_.join({begin ? Sequence() : anything, inner, ended_ ? Sequence() : anything});
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("json schema, " + printable(where_),
                fmt::format("pattern \"{}\": {}", printable(text_), what),
                "write it with classes, groups, | and repetitions");
  }
  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (peek() != c || !more()) return false;
    ++at_;
    return true;
  }
  uint32_t take_char() {
    if (!more()) fail("ends too early");
    size_t n = 0;
    uint32_t c = first_char(text_.substr(at_), n);
    at_ += n;
    return c;
  }

  Sequence alternatives(int depth) {
    if (depth > 100) fail("groups are nested too deeply");
    std::vector<Sequence> out;
    do out.push_back(sequence(depth));
    while (take('|'));
    // ^a|b$ means (^a)|(b$), which is rarely meant.
    if (depth == 0 && out.size() > 1 && (ended_ || text_[0] == '^'))
      fail("put alternatives between ^ and $ in parentheses");
    return b_.any_of(std::move(out));
  }

  Sequence sequence(int depth) {
    Sequence out;
    while (more() && peek() != '|' && peek() != ')') {
      if (take('$')) {
        if (more() || depth > 0) fail("$ must be at the end");
        ended_ = true;
        break;
      }
      Sequence x = repeated(atom(depth));
      out.insert(out.end(), x.begin(), x.end());
    }
    return out;
  }

  Sequence atom(int depth) {
    uint32_t c = take_char();
    switch (c) {
      case '(': {
        if (take('?') && !take(':')) fail("only plain and (?: groups are supported");
        Sequence x = alternatives(depth + 1);
        if (!take(')')) fail("a group is not closed");
        return x;
      }
      case '[':
        return json_one_of(b_, char_class());
      case '.':
        return json_one_of(b_, all_but({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}));
      case '\\':
        return json_one_of(b_, escape());
      case '^':
        fail("^ must be at the beginning");
      case '*':
      case '+':
      case '?':
        fail("a repetition has nothing to repeat");
      default:
        return json_one_of(b_, {{c, c}});
    }
  }

  Sequence repeated(Sequence x) {
    for (;;) {
      int64_t least = 0, most = GrammarBuilder::kUnbounded;
      if (take('*')) {
      } else if (take('+')) {
        least = 1;
      } else if (take('?')) {
        most = 1;
      } else if (peek() == '{') {
        ++at_;
        least = most = number();
        if (take(',')) most = peek() == '}' ? GrammarBuilder::kUnbounded : number();
        if (!take('}')) fail("a brace is not closed");
        if (most != GrammarBuilder::kUnbounded && most < least) fail("a repetition ends too early");
      } else {
        return x;
      }
      if (peek() == '?' || peek() == '+') fail("lazy and possessive repetitions are not supported");
      x = b_.repeat(x, least, most);
    }
  }
  int64_t number() {
    int64_t n = 0;
    size_t begin = at_;
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      n = n * 10 + (peek() - '0');
      if (n > 10'000) fail("more than 10000 repetitions");
    }
    if (at_ == begin) fail("a number of repetitions is missing");
    return n;
  }

  // After a backslash. White space is ECMA-262's.
  std::vector<CharSpan> escape() {
    uint32_t c = take_char();
    static const std::vector<CharSpan> kDigit = {{'0', '9'}},
                                       kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                                       kSpace = {{'\t', '\r'},     {' ', ' '},
                                                 {0xA0, 0xA0},     {0x1680, 0x1680},
                                                 {0x2000, 0x200A}, {0x2028, 0x2029},
                                                 {0x202F, 0x202F}, {0x205F, 0x205F},
                                                 {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    switch (c) {
      case 'd':
        return kDigit;
      case 'D':
        return all_but(kDigit);
      case 'w':
        return kWord;
      case 'W':
        return all_but(kWord);
      case 's':
        return kSpace;
      case 'S':
        return all_but(kSpace);
      case 'n':
        return {{'\n', '\n'}};
      case 'r':
        return {{'\r', '\r'}};
      case 't':
        return {{'\t', '\t'}};
      case 'f':
        return {{'\f', '\f'}};
      case 'x':
        return {hex_char(2)};
      case 'u':
        return {hex_char(4)};
      default:
        if (c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
          fail("an escape is not supported");
        return {{c, c}};
    }
  }
  CharSpan hex_char(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      char c = peek();
      ++at_;
      int d = c >= '0' && c <= '9'   ? c - '0'
              : c >= 'a' && c <= 'f' ? c - 'a' + 10
              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                     : -1;
      if (d < 0) fail("an escape lacks digits");
      value = value * 16 + static_cast<uint32_t>(d);
    }
    return {value, value};
  }

  std::vector<CharSpan> char_class() {
    bool inverted = take('^');
    std::vector<CharSpan> out;
    for (bool first = true; first || peek() != ']'; first = false) {
      uint32_t c = take_char();
      if (c == ']' && first) fail("a class is empty");
      std::vector<CharSpan> item = {{c, c}};
      if (c == '\\') item = escape();
      bool single = item.size() == 1 && item[0].first == item[0].second;
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        uint32_t last = take_char();
        if (last == '\\') {
          std::vector<CharSpan> end = escape();
          if (end.size() != 1 || end[0].first != end[0].second) fail("a range has no end");
          last = end[0].first;
        }
        if (!single || last < item[0].first) fail("a range ends before it begins");
        item[0].second = last;
      }
      out.insert(out.end(), item.begin(), item.end());
    }
    ++at_;
    return inverted ? all_but(std::move(out)) : out;
  }

  GrammarBuilder& b_;
  std::string_view text_;
  std::string where_;
  size_t at_ = 0;
  bool ended_ = false;
};

}  // namespace

Sequence json_regex(GrammarBuilder& b, std::string_view pattern, const std::string& where) {
  return RegexParser(b, pattern, where).parse();
}

}  // namespace wels
