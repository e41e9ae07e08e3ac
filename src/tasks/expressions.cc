// Expressions with brackets, reduced one operation at a time.
#include <fmt/format.h>

#include "tasks/expression.h"
#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

constexpr int64_t kMostValue = 99;

bool is_sum(const Expression& e) { return e.op == '+' || e.op == '-'; }

// An expression of so many operations with all values from 0 to kMostValue. Chains of sums and of
// products lean to the left, as their text is read: which operation comes next can be seen in it.
ExpressionRef random_expression(Rng& rng, int operations) {
  if (operations == 0) return number_expression(uniform_int(rng, 1, 12));
  int before = static_cast<int>(rng.below(static_cast<uint64_t>(operations)));
  ExpressionRef left = random_expression(rng, before);
  ExpressionRef right = random_expression(rng, operations - 1 - before);
  std::string fitting;
  if (left->value + right->value <= kMostValue && !(is_sum(*left) && is_sum(*right)))
    fitting += '+';
  if (left->value * right->value <= kMostValue && !(left->op == '*' && right->op == '*'))
    fitting += '*';
  fitting += '-';
  char op = fitting[rng.below(fitting.size())];
  bool swapped = op == '-'   ? left->value < right->value
                 : op == '+' ? is_sum(*right)
                             : right->op == '*';
  if (swapped) std::swap(left, right);
  return binary_expression(left, op, right);
}

TaskExample make(Rng& rng, int operations) {
  ExpressionRef expression = random_expression(rng, operations);
  TaskExample e;
  e.question = expression_text(*expression);
  e.answer = fmt::format("{}", expression->value);
  e.chain = worked_steps(expression);
  return e;
}

}  // namespace

std::unique_ptr<Task> make_expressions() {
  return make_generator(
      {"expressions",
       "the value of an expression with brackets; no value on the way is above 99",
       {1, 12, 4, "operations"},
       make,
       score_number});
}

}  // namespace wels
