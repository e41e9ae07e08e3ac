// Multiplication of two numbers of the same length by partial products, each digit by digit with
// carries from the least significant one, and added up column by column (arXiv 2510.11495 finds
// chains of partial products learnable where plain answers never are).
#include <fmt/format.h>

#include "tasks/column_sum.h"
#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

// "37*8: 7*8=56 3*8+5=29 =296", and the product, followed by so many zeros.
struct Partial {
  std::string steps, product;
};
Partial partial_product(const std::string& a, char digit, size_t zeros) {
  Partial p;
  int carry = 0;
  for (size_t i = a.size(); i-- > 0;) {
    int value = (a[i] - '0') * (digit - '0') + carry;
    p.steps +=
        fmt::format("{}*{}{}={} ", a[i], digit, carry ? fmt::format("+{}", carry) : "", value);
    p.product.insert(0, i == 0 ? fmt::format("{}", value) : fmt::format("{}", value % 10));
    carry = value / 10;
  }
  if (digit == '0') p.product = "0";
  if (p.product != "0") p.product.append(zeros, '0');
  p.steps = fmt::format("{}*{}{}: {}={}", a, digit, std::string(zeros, '0'), p.steps, p.product);
  return p;
}

TaskExample make(Rng& rng, int digits) {
  std::string a = fmt::format("{}", number_of_digits(rng, digits));
  std::string b = fmt::format("{}", number_of_digits(rng, digits));
  TaskExample e;
  e.question = fmt::format("{}*{}", a, b);
  std::string total;
  for (size_t i = 0; i < b.size(); ++i) {
    Partial p = partial_product(a, b[b.size() - 1 - i], i);
    e.chain += (i ? " " : "") + p.steps;
    if (total.empty()) {
      total = p.product;
    } else {
      ColumnSum columns = add_columns(p.product, total);
      e.chain += fmt::format(" {}+{}: {} ={}", p.product, total, columns.steps, columns.sum);
      total = columns.sum;
    }
  }
  e.answer = total;
  return e;
}

}  // namespace

std::unique_ptr<Task> make_multiplication() {
  return make_generator({"multiplication",
                         "the product of two numbers of the same length",
                         {1, 9, 2, "digits"},
                         make,
                         score_number});
}

}  // namespace wels
