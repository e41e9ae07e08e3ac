#include "tasks/number.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "tasks/plain.h"

namespace wels {
namespace {

constexpr size_t kMostDigits = 400;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string without_zeros(std::string digits) {
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));
  return digits;
}

std::string product(const std::string& a, const std::string& b) {
  if (a == "1") return b;
  if (b == "1") return a;
  std::string out(a.size() + b.size(), '0');
  for (size_t i = a.size(); i-- > 0;) {
    int carry = 0;
    for (size_t j = b.size(); j-- > 0;) {
      int v = (a[i] - '0') * (b[j] - '0') + (out[i + j + 1] - '0') + carry;
      out[i + j + 1] = static_cast<char>('0' + v % 10);
      carry = v / 10;
    }
    out[i] = static_cast<char>('0' + carry);
  }
  return without_zeros(out);
}

std::string sum(const std::string& a, const std::string& b) {
  std::string out(std::max(a.size(), b.size()) + 1, '0');
  int carry = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    int v = carry;
    if (i < a.size()) v += a[a.size() - 1 - i] - '0';
    if (i < b.size()) v += b[b.size() - 1 - i] - '0';
    out[out.size() - 1 - i] = static_cast<char>('0' + v % 10);
    carry = v / 10;
  }
  return without_zeros(out);
}

// Reads forward over a text.
struct Reader {
  std::string_view text;
  size_t at = 0;
  bool blanks = true;  // may part groups of three digits

  char peek(size_t ahead = 0) const { return at + ahead < text.size() ? text[at + ahead] : '\0'; }
  std::string digits() {
    size_t begin = at;
    while (is_digit(peek())) ++at;
    return std::string(text.substr(begin, at - begin));
  }
  // Digits, in groups of three where one of these parts all of them.
  std::string whole() {
    std::string out = digits();
    if (out.empty() || out.size() > 3) return out;
    for (std::string_view part : {",", "{,}", "\\,", ",\\!", " "}) {
      if (part == " " && (!blanks || out.front() == '0')) break;
      while (group_behind(part)) {
        at += part.size();
        out += digits();
      }
      if (out.size() > 3) break;
    }
    return out;
  }
  bool group_behind(std::string_view part) const {
    size_t n = part.size();
    if (text.substr(at, n) != part) return false;
    char behind = peek(n + 3);
    return is_digit(peek(n)) && is_digit(peek(n + 1)) && is_digit(peek(n + 2)) &&
           !is_digit(behind) && !(part == " " && behind == '/');  // 1 250/500
  }
  bool take(std::string_view word) {
    if (text.substr(at, word.size()) != word) return false;
    at += word.size();
    return true;
  }
};

// What a command of LaTeX takes: {-12}, or one digit without braces.
bool read_argument(Reader& r, std::string& digits, bool& negative) {
  while (r.take(" ")) continue;
  if (!r.take("{")) {
    digits = r.text.substr(r.at, is_digit(r.peek()) ? 1 : 0);
    r.at += digits.size();
    return !digits.empty();
  }
  if (r.take("-")) {
    negative = !negative;
  } else {
    r.take("+");
  }
  digits = r.digits();
  return !digits.empty() && r.take("}");
}

// \frac{a}{b} or \frac12, behind its backslash.
std::optional<Number> read_latex_fraction(Reader& r) {
  if (!(r.take("frac") || r.take("dfrac") || r.take("tfrac"))) return std::nullopt;
  Number n;
  if (!read_argument(r, n.numerator, n.negative) || !read_argument(r, n.denominator, n.negative))
    return std::nullopt;
  return n;
}

void add_fraction(Number& n, const std::string& top, const std::string& bottom) {
  if (n.numerator.size() + bottom.size() > kMostDigits) return;
  n.numerator = sum(product(n.numerator, bottom), top);
  n.denominator = bottom;
}

// Passes over "3", "-3" or, braced, "-3}".
std::optional<int64_t> read_power(Reader& r, bool braced) {
  Reader e = r;
  bool negative = e.take("-");
  if (!negative) e.take("+");
  std::string digits = e.digits();
  if (digits.empty() || (braced && !e.take("}"))) return std::nullopt;
  r = e;
  int64_t n = digits.size() > 4 ? 9999 : std::stoll(digits);
  return negative ? -n : n;
}

// Passes over "10^3" or "10^{-3}".
std::optional<int64_t> read_power_of_ten(Reader& r) {
  Reader e = r;
  if (!e.take("10^")) return std::nullopt;
  std::optional<int64_t> power = read_power(e, e.take("{"));
  if (power) r = e;
  return power;
}

// Passes over "e3", "E-3", "\times 10^{3}" or "× 10^3": the power of ten, 0 without one.
int64_t read_exponent(Reader& r) {
  Reader e = r;
  std::optional<int64_t> power;
  if (e.take("e") || e.take("E")) {
    power = read_power(e, false);
  } else {
    while (e.take(" ")) continue;
    if (!(e.take("\\times") || e.take("\\cdot") || e.take("×") || e.take("*") || e.take("x")))
      return 0;
    while (e.take(" ")) continue;
    power = read_power_of_ten(e);
  }
  if (power) r = e;
  return power.value_or(0);
}

void scale(Number& n, int64_t power) {
  std::string& side = power < 0 ? n.denominator : n.numerator;
  side.append(static_cast<size_t>(std::abs(power)), '0');
}

// 12, 1,234.5, .5, 1e3, 10^3, 3/4, 1 1/2, 1\frac{1}{2}, without a sign.
std::optional<Number> read_plain(Reader& r) {
  Number n;
  if (std::optional<int64_t> power = read_power_of_ten(r)) {
    n.numerator = "1";
    scale(n, *power);
    return n;
  }
  n.numerator = r.whole();
  bool decimal = r.peek() == '.' && is_digit(r.peek(1));
  if (n.numerator.empty() && !decimal) return std::nullopt;
  if (decimal) {
    ++r.at;
    std::string behind = r.digits();
    n.numerator += behind;
    n.denominator = "1" + std::string(behind.size(), '0');
    scale(n, read_exponent(r));
    return n;
  }
  if (int64_t power = read_exponent(r); power != 0) {
    scale(n, power);
    return n;
  }
  if (r.peek() == '/' && is_digit(r.peek(1))) {
    ++r.at;
    n.denominator = r.digits();
    return n;
  }
  Reader mixed = r;  // a whole number, a blank and a fraction
  if (mixed.take(" ")) {
    std::string top = mixed.digits();
    if (!top.empty() && mixed.take("/") && is_digit(mixed.peek())) {
      add_fraction(n, top, mixed.digits());
      r = mixed;
    }
  }
  Reader latex = r;
  if (latex.take("\\")) {
    std::optional<Number> part = read_latex_fraction(latex);
    if (part && !part->negative) {
      add_fraction(n, part->numerator, part->denominator);
      r = latex;
    }
  }
  return n;
}

// The number at the reader, sign and currency included, behind which the reader then stands.
std::optional<Number> read_number(Reader& r) {
  bool negative = false, signed_ = false;
  auto sign = [&] {
    if (signed_ || (r.peek() != '-' && r.peek() != '+')) return;
    negative = r.peek() == '-';
    signed_ = true;
    ++r.at;
  };
  sign();
  for (std::string_view currency : {"\\$", "$", "€", "£", "¥"}) {
    if (r.take(currency)) break;
  }
  sign();
  std::optional<Number> n;
  if (r.peek() == '\\') {
    ++r.at;
    n = read_latex_fraction(r);
  } else {
    n = read_plain(r);
  }
  if (!n || n->numerator.size() > kMostDigits || n->denominator.size() > kMostDigits)
    return std::nullopt;
  n->numerator = without_zeros(n->numerator);
  n->denominator = without_zeros(n->denominator);
  if (n->denominator == "0") return std::nullopt;
  n->negative = negative != n->negative && n->numerator != "0";
  return n;
}

bool begins_with_any(std::string_view text, std::initializer_list<std::string_view> signs) {
  return std::any_of(signs.begin(), signs.end(),
                     [&](std::string_view sign) { return text.starts_with(sign); });
}

// Whether a number between these is the exponent or index of what stands before it.
bool is_exponent(std::string_view before) {
  if (before.ends_with('{')) before.remove_suffix(1);
  return before.ends_with('^') || before.ends_with('_');
}

// Whether it is a part of something else: 7², 2^5, 2\pi, \sqrt{2}; but not 90^\circ.
bool is_fragment(std::string_view before, std::string_view behind) {
  if (before.ends_with("√") || before.ends_with("\\sqrt")) return true;
  if (before.ends_with('{')) {
    size_t command = before.rfind('\\');
    bool text = command != std::string_view::npos &&
                begins_with_any(before.substr(command + 1), {"text", "math", "mbox", "boxed"});
    size_t letters = before.size() - 1;
    while (letters > 0 && std::isalpha(static_cast<unsigned char>(before[letters - 1]))) --letters;
    if (letters > 0 && letters - 1 == command && !text) return true;
  }
  if (behind.starts_with('^')) return !begins_with_any(behind, {"^\\circ", "^{\\circ"});
  return begins_with_any(behind, {"¹", "²", "³", "⁰", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹", "⁻", "√", "π",
                                  "\\sqrt", "\\pi", "\\frac", "\\ln", "\\log"});
}

}  // namespace

bool operator==(const Number& a, const Number& b) {
  if (a.negative != b.negative) return false;
  if (a.denominator == b.denominator) return a.numerator == b.numerator;
  return product(a.numerator, b.denominator) == product(b.numerator, a.denominator);
}

std::optional<Number> parse_number(std::string_view text, bool blanks) {
  std::string plain = narrowed(text);
  std::string_view rest = plain;
  if (rest.size() > 2 && rest.front() == '$' && rest.back() == '$')  // LaTeX's, not a currency
    rest = trimmed(rest.substr(1, rest.size() - 2));
  Reader r{rest, 0, blanks};
  std::optional<Number> n = read_number(r);
  if (!n) return std::nullopt;
  if (!r.take("\\%")) r.take("%");
  r.take(".");
  return r.at == rest.size() ? n : std::nullopt;
}

std::optional<Number> last_number(std::string_view text) {
  std::string plain = narrowed(text);
  std::optional<Number> last;
  Reader r{plain};
  while (r.at < plain.size()) {
    size_t begin = r.at;
    char c = plain[begin];
    bool starts = is_digit(c) || (c == '.' && is_digit(r.peek(1))) || c == '\\';
    // A sign behind a digit, a letter or a bracket is an operation.
    bool sign = (c == '-' || c == '+') &&
                (begin == 0 || !(std::isalnum(static_cast<unsigned char>(plain[begin - 1])) ||
                                 plain[begin - 1] == ')'));
    r.blanks = begin < 2 || plain[begin - 1] != ' ' || !is_digit(plain[begin - 2]);
    if (starts || sign || c == '$') {
      if (std::optional<Number> n = read_number(r)) {
        std::string_view before = std::string_view(plain).substr(0, begin);
        if (is_fragment(before, std::string_view(plain).substr(r.at))) {
          last.reset();
        } else if (!is_exponent(before)) {
          last = n;
        }
        continue;
      }
    }
    // Digits too long for a number are passed over as a whole.
    r.at =
        std::max(begin + 1, is_digit(c) ? plain.find_first_not_of("0123456789", begin) : begin + 1);
  }
  return last;
}

}  // namespace wels
