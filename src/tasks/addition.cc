// Addition of two numbers of the same length, column by column from the least significant digit
// with carries: what small models learn by far the fastest (arXiv 2307.03381). Subtraction too, for
// other chains.
#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "tasks/column_sum.h"
#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

std::string random_digits(Rng& rng, int n) {
  std::string digits(1, static_cast<char>('1' + rng.below(9)));
  while (static_cast<int>(digits.size()) < n) digits += static_cast<char>('0' + rng.below(10));
  return digits;
}

TaskExample make(Rng& rng, int digits) {
  std::string a = random_digits(rng, digits), b = random_digits(rng, digits);
  ColumnSum columns = add_columns(a, b);
  TaskExample e;
  e.question = fmt::format("{}+{}", a, b);
  e.answer = columns.sum;
  e.chain = columns.steps;
  return e;
}

}  // namespace

ColumnSum add_columns(const std::string& a, const std::string& b) {
  ColumnSum out;
  int carry = 0;
  size_t columns = std::max(a.size(), b.size());
  for (size_t i = 0; i < columns; ++i) {
    std::string step;
    int value = carry;
    for (const std::string* number : {&a, &b}) {
      if (i >= number->size()) continue;
      char digit = (*number)[number->size() - 1 - i];
      value += digit - '0';
      step += step.empty() ? "" : "+";
      step += digit;
    }
    if (carry) step += "+1";
    out.steps += fmt::format("{}{}={}", i ? " " : "", step, value);
    bool last = i + 1 == columns;
    out.sum.insert(0, last ? fmt::format("{}", value) : fmt::format("{}", value % 10));
    carry = value / 10;
  }
  return out;
}

ColumnSum subtract_columns(const std::string& a, const std::string& b) {
  ColumnSum out;
  int borrow = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    int digit = a[a.size() - 1 - i] - '0', less = i < b.size() ? b[b.size() - 1 - i] - '0' : 0;
    int ten = digit - less - borrow < 0 ? 10 : 0, value = digit + ten - less - borrow;
    out.steps += fmt::format("{}{}", i ? " " : "", digit + ten);
    if (i < b.size()) out.steps += fmt::format("-{}", less);
    if (borrow) out.steps += "-1";
    out.steps += fmt::format("={}", value);
    out.sum.insert(0, fmt::format("{}", value));
    borrow = ten / 10;
  }
  CHECK(borrow == 0);
  out.sum.erase(0, std::min(out.sum.find_first_not_of('0'), out.sum.size() - 1));
  return out;
}

std::unique_ptr<Task> make_addition() {
  return make_generator({"addition",
                         "the sum of two numbers of the same length",
                         {1, 40, 8, "digits"},
                         make,
                         score_number});
}

}  // namespace wels
