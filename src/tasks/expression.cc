#include "tasks/expression.h"

#include <fmt/format.h>

#include <cstdlib>
#include <numeric>

#include "base/check.h"
#include "tasks/column_sum.h"
#include "tasks/plain.h"

namespace wels {
namespace {

int rank_of(char op) { return op == 0 ? 3 : op == '+' || op == '-' ? 1 : 2; }

void write(const Expression& e, std::string& out) {
  if (e.op == 0) {
    out += fmt::format("{}", e.value);
    return;
  }
  auto part = [&](const Expression& p, bool brackets) {
    if (brackets) out += '(';
    write(p, out);
    if (brackets) out += ')';
  };
  int rank = rank_of(e.op), right = rank_of(e.right->op);
  part(*e.left, rank_of(e.left->op) < rank);
  out += e.op;
  part(*e.right, right < rank || (right == rank && (e.op == '-' || e.op == '/')));
}

// With the leftmost operation on two numbers done.
ExpressionRef reduced(const ExpressionRef& e) {
  if (e->left->op == 0 && e->right->op == 0) return number_expression(e->value);
  if (e->left->op != 0) return binary_expression(reduced(e->left), e->op, e->right);
  return binary_expression(e->left, e->op, reduced(e->right));
}

// The operation that reduced() does.
const Expression& next_operation(const Expression& e) {
  if (e.left->op != 0) return next_operation(*e.left);
  return e.right->op != 0 ? next_operation(*e.right) : e;
}

constexpr int64_t kMost = 1'000'000'000'000'000;

// Recursive descent over a text from strangers.
class Evaluator {
 public:
  explicit Evaluator(std::string_view text) : text_(text) {}
  std::optional<Evaluated> run() {
    std::optional<Value> v = sum(0);
    if (!v || at_ != text_.size()) return std::nullopt;
    return Evaluated{v->n, v->d, numbers_};
  }

 private:
  struct Value {
    int64_t n, d;
  };
  static constexpr int kDeepest = 50;

  static std::optional<Value> combine(Value a, char op, Value b) {
    using Wide = __int128;
    Wide n, d = static_cast<Wide>(a.d) * b.d;
    if (op == '+' || op == '-') {
      Wide l = static_cast<Wide>(a.n) * b.d, r = static_cast<Wide>(b.n) * a.d;
      n = op == '+' ? l + r : l - r;
    } else if (op == '*') {
      n = static_cast<Wide>(a.n) * b.n;
    } else {
      if (b.n == 0) return std::nullopt;
      n = static_cast<Wide>(a.n) * b.d;
      d = static_cast<Wide>(a.d) * b.n;
      if (d < 0) {
        n = -n;
        d = -d;
      }
    }
    Wide x = n < 0 ? -n : n, y = d;  // Euclid
    while (y != 0) {
      Wide rest = x % y;
      x = y;
      y = rest;
    }
    n /= x;
    d /= x;
    if (n > kMost || n < -kMost || d > kMost) return std::nullopt;
    return Value{static_cast<int64_t>(n), static_cast<int64_t>(d)};
  }

  char peek() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  std::optional<Value> sum(int depth) {
    std::optional<Value> v = product(depth);
    while (v && (peek() == '+' || peek() == '-')) {
      char op = text_[at_++];
      std::optional<Value> right = product(depth);
      v = right ? combine(*v, op, *right) : right;
    }
    return v;
  }
  std::optional<Value> product(int depth) {
    std::optional<Value> v = factor(depth);
    while (v && (peek() == '*' || peek() == '/')) {
      char op = text_[at_++];
      std::optional<Value> right = factor(depth);
      v = right ? combine(*v, op, *right) : right;
    }
    return v;
  }
  std::optional<Value> factor(int depth) {
    if (peek() == '(') {
      if (depth >= kDeepest) return std::nullopt;
      ++at_;
      std::optional<Value> v = sum(depth + 1);
      if (!v || peek() != ')') return std::nullopt;
      ++at_;
      return v;
    }
    int64_t n = 0;
    size_t begin = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      n = n * 10 + (text_[at_] - '0');
      if (n > kMost) return std::nullopt;
    }
    if (at_ == begin) return std::nullopt;
    numbers_.push_back(n);
    return Value{n, 1};
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<int64_t> numbers_;
};

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
}

}  // namespace

ExpressionRef number_expression(int64_t value) {
  auto e = std::make_shared<Expression>();
  e->value = value;
  return e;
}

ExpressionRef binary_expression(ExpressionRef left, char op, ExpressionRef right) {
  auto e = std::make_shared<Expression>();
  int64_t a = left->value, b = right->value;
  e->op = op;
  switch (op) {
    case '+':
      e->value = a + b;
      break;
    case '-':
      e->value = a - b;
      break;
    case '*':
      e->value = a * b;
      break;
    default:
      CHECK(op == '/');
      CHECK(b != 0);
      CHECK(a % b == 0);
      e->value = a / b;
  }
  e->left = std::move(left);
  e->right = std::move(right);
  return e;
}

std::string expression_text(const Expression& e) {
  std::string out;
  write(e, out);
  return out;
}

std::string reduction_steps(ExpressionRef e, std::string_view between) {
  std::string steps;
  while (e->op != 0) {
    e = reduced(e);
    if (!steps.empty()) steps += between;
    steps += expression_text(*e);
  }
  return steps;
}

namespace {

// "=12", or the columns first where a number of two digits is added or subtracted.
std::string worked_value(const Expression& e) {
  std::string a = fmt::format("{}", e.left->value), b = fmt::format("{}", e.right->value);
  bool columns = (e.op == '+' || e.op == '-') && (a.size() > 1 || b.size() > 1);
  if (!columns) return fmt::format("={}", e.value);
  ColumnSum sum = e.op == '+' ? add_columns(a, b) : subtract_columns(a, b);
  return fmt::format(": {} ={}", sum.steps, e.value);
}

}  // namespace

std::string worked_steps(ExpressionRef e) {
  std::string steps;
  while (e->op != 0) {
    const Expression& next = next_operation(*e);
    // The last operation is what the one before it left, and stands there already.
    bool stands = &next == e.get() && !steps.empty();
    if (!stands) steps += (steps.empty() ? "" : " ") + expression_text(next);
    steps += worked_value(next);
    e = reduced(e);
    if (e->op != 0) steps += " " + expression_text(*e);
  }
  return steps;
}

std::optional<Evaluated> evaluate_expression(std::string_view text) {
  std::string plain = narrowed(text);
  if (plain.ends_with('.')) plain.pop_back();
  replace_all(plain, "×", "*");
  replace_all(plain, "÷", "/");
  std::string_view rest = plain;
  size_t equals = rest.find('=');
  std::optional<Evaluated> left = Evaluator(trimmed(rest.substr(0, equals))).run();
  if (!left || equals == std::string_view::npos) return left;
  std::optional<Evaluated> right = Evaluator(trimmed(rest.substr(equals + 1))).run();
  if (!right || left->numerator != right->numerator || left->denominator != right->denominator)
    return std::nullopt;
  if (right->numbers.size() == 1) return left;
  return left->numbers.size() == 1 ? right : std::nullopt;
}

}  // namespace wels
