// GBNF, the notation of llama.cpp's grammars:
//   name ::= alternative | alternative       rules; `root` is the whole text; names: letters,
//   digits, -, _ "text"  [a-z_]  [^"\\]  .                 characters; escapes \n \r \t \" \\ \[ \]
//   \- \^ \xHH \uHHHH \UHHHHHHHH ( ... )  x* x+ x? x{m} x{m,} x{m,n}       groups and repetitions
//   # comment                                 to the end of the line
// A rule ends with its line, except inside parentheses and after ::= or |.
#include <fmt/format.h>

#include <set>

#include "base/error.h"
#include "engine/grammar_builder.h"
#include "formats/json.h"

namespace wels {
namespace {

constexpr int kDeepest = 200;  // parentheses in each other
constexpr int64_t kMostRepeats = 10'000;

class GbnfParser {
 public:
  explicit GbnfParser(std::string_view text) : text_(text), build_("grammar") {}

  Grammar parse() {
    for (skip(true); at_ < text_.size(); skip(true)) parse_rule();
    for (const auto& [name, rule] : rules_) {
      if (!defined_.contains(name))
        throw Error("grammar", fmt::format("rule \"{}\" is used but not defined", printable(name)),
                    "define it or correct its name");
    }
    auto root = rules_.find("root");
    if (root == rules_.end())
      throw Error("grammar", "has no rule \"root\"", "begin with root ::= ...");
    std::map<int32_t, std::string> names;
    for (const auto& [name, rule] : rules_) names[rule] = printable(name);
    return build_.finish(root->second, names);
  }

 private:
  using Sequence = GrammarBuilder::Sequence;

  [[noreturn]] void fail(const std::string& what, const std::string& hint = "") const {
    throw Error(fmt::format("grammar, line {}", line_), what, hint);
  }
  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }
  bool take(std::string_view s) {
    if (text_.substr(at_, s.size()) != s) return false;
    at_ += s.size();
    return true;
  }
  // White space and comments; lines too where `lines`.
  void skip(bool lines) {
    while (more()) {
      char c = text_[at_];
      if (c == '#') {
        while (more() && text_[at_] != '\n') ++at_;
      } else if (c == ' ' || c == '\t' || c == '\r' || (lines && c == '\n')) {
        line_ += c == '\n';
        ++at_;
      } else {
        return;
      }
    }
  }
  static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  }
  std::string parse_name() {
    size_t begin = at_;
    while (more() && is_name(text_[at_])) ++at_;
    if (at_ == begin)
      fail(fmt::format("\"{}\" is no name", printable(text_.substr(at_, 1))),
           "names are letters, digits, - and _");
    return std::string(text_.substr(begin, at_ - begin));
  }
  int32_t rule_named(const std::string& name) {
    auto [it, fresh] = rules_.try_emplace(name, 0);
    if (fresh) it->second = build_.new_rule();
    return it->second;
  }

  void parse_rule() {
    std::string name = parse_name();
    int32_t rule = rule_named(name);
    if (!defined_.insert(name).second) fail("rule \"" + name + "\" is defined twice");
    skip(false);
    if (!take("::=")) fail("::= is missing after \"" + name + "\"");
    skip(true);
    build_.define(rule, parse_alternatives(0));
    if (more() && peek() != '\n')
      fail(fmt::format("\"{}\" is unexpected", printable(text_.substr(at_, 1))));
  }

  std::vector<Sequence> parse_alternatives(int depth) {
    if (depth > kDeepest) fail("parentheses are nested too deeply");
    std::vector<Sequence> out;
    do {
      skip(true);
      out.push_back(parse_sequence(depth));
    } while (take("|"));
    return out;
  }

  Sequence parse_sequence(int depth) {
    Sequence out;
    for (;; skip(depth > 0)) {
      Sequence x;
      char c = peek();
      if (c == '"') {
        x = parse_string();
      } else if (c == '[') {
        x = parse_class();
      } else if (c == '.') {
        ++at_;
        x = build_.none_of({});
      } else if (c == '(') {
        ++at_;
        std::vector<Sequence> inner = parse_alternatives(depth + 1);
        skip(true);
        if (!take(")")) fail("a parenthesis is not closed");
        x = build_.any_of(std::move(inner));
      } else if (more() && is_name(c)) {
        x = build_.rule(rule_named(parse_name()));
      } else {
        return out;
      }
      x = parse_repetition(std::move(x), depth);
      out.insert(out.end(), x.begin(), x.end());
    }
  }

  int64_t parse_count() {
    int64_t n = 0;
    size_t begin = at_;
    for (; more() && peek() >= '0' && peek() <= '9'; ++at_) {
      n = n * 10 + (peek() - '0');
      if (n > kMostRepeats) fail(fmt::format("more than {} repetitions", kMostRepeats));
    }
    if (at_ == begin) fail("a number of repetitions is missing");
    return n;
  }

  // White space may stand before a repetition and inside its braces.
  Sequence parse_repetition(Sequence x, int depth) {
    auto space = [&] { skip(depth > 0); };
    for (;;) {
      space();
      if (take("*")) {
        x = build_.repeat(x, 0, GrammarBuilder::kUnbounded);
      } else if (take("+")) {
        x = build_.repeat(x, 1, GrammarBuilder::kUnbounded);
      } else if (take("?")) {
        x = build_.repeat(x, 0, 1);
      } else if (take("{")) {
        space();
        int64_t least = parse_count(), most = least;
        space();
        if (take(",")) {
          space();
          most = peek() == '}' ? GrammarBuilder::kUnbounded : parse_count();
          space();
        }
        if (!take("}")) fail("a brace is not closed");
        if (most != GrammarBuilder::kUnbounded && most < least)
          fail(fmt::format("{{{},{}}} allows no number of repetitions", least, most));
        x = build_.repeat(x, least, most);
      } else {
        return x;
      }
    }
  }

  uint32_t parse_hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      char c = peek();
      int d = c >= '0' && c <= '9'   ? c - '0'
              : c >= 'a' && c <= 'f' ? c - 'a' + 10
              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                     : -1;
      if (d < 0) fail(fmt::format("an escape needs {} hexadecimal digits", digits));
      value = value * 16 + static_cast<uint32_t>(d);
    }
    return value;
  }

  uint32_t parse_char() {
    if (!more() || peek() == '\n') fail("a string or class is not closed on its line");
    auto c = static_cast<uint8_t>(text_[at_++]);
    if (c == '\\') {
      char e = peek();
      ++at_;
      switch (e) {
        case 'n':
          return '\n';
        case 'r':
          return '\r';
        case 't':
          return '\t';
        case 'x':
          return parse_hex(2);
        case 'u':
          return checked(parse_hex(4));
        case 'U':
          return checked(parse_hex(8));
        case '"':
        case '\\':
        case '[':
        case ']':
        case '-':
        case '^':
          return static_cast<uint32_t>(e);
        default:
          fail(fmt::format("\\{} is no escape", printable(std::string(1, e))));
      }
    }
    int n = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : -1;
    if (n < 0 || at_ + static_cast<size_t>(n) > text_.size()) fail("is not valid UTF-8");
    uint32_t value = n == 0 ? c : c & (0x3fu >> n);
    for (int i = 0; i < n; ++i) {
      auto next = static_cast<uint8_t>(text_[at_++]);
      if ((next & 0xc0) != 0x80) fail("is not valid UTF-8");
      value = value << 6 | (next & 0x3f);
    }
    return checked(value);
  }
  uint32_t checked(uint32_t c) const {
    if (c > kLastChar || (c >= 0xD800 && c <= 0xDFFF))
      fail(fmt::format("U+{:04X} is no character", c));
    return c;
  }

  Sequence parse_string() {
    ++at_;
    std::vector<Sequence> parts;
    while (peek() != '"') {
      uint32_t c = parse_char();
      parts.push_back(build_.one_of({{c, c}}));
    }
    ++at_;
    return GrammarBuilder::join(std::move(parts));
  }

  Sequence parse_class() {
    ++at_;
    bool inverted = take("^");
    std::vector<CharSpan> ranges;
    while (peek() != ']') {
      uint32_t first = parse_char(), last = first;
      if (peek() == '-' && text_.substr(at_ + 1, 1) != "]") {
        ++at_;
        last = parse_char();
      }
      if (last < first) fail("a range of characters ends before it begins");
      ranges.push_back({first, last});
    }
    ++at_;
    return inverted ? build_.none_of(std::move(ranges)) : build_.one_of(std::move(ranges));
  }

  std::string_view text_;
  size_t at_ = 0;
  int64_t line_ = 1;
  GrammarBuilder build_;
  std::map<std::string, int32_t> rules_;
  std::set<std::string> defined_;
};

}  // namespace

Grammar Grammar::from_gbnf(std::string_view text) { return GbnfParser(text).parse(); }

}  // namespace wels
