// Tasks of one calculation after another: chains of sums, arithmetic modulo a number, Euclid's
// algorithm, numbers in other bases.
#include <fmt/format.h>

#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

// 47+85-23: no partial sum is below 0.
TaskExample make_sum_chain(Rng& rng, int terms) {
  TaskExample e;
  int64_t sum = uniform_int(rng, 1, 99);
  e.question = fmt::format("{}", sum);
  for (int i = 1; i < terms; ++i) {
    int64_t term = uniform_int(rng, 1, 99);
    char sign = term <= sum && rng.below(2) ? '-' : '+';
    int64_t next = sign == '+' ? sum + term : sum - term;
    e.question += fmt::format("{}{}", sign, term);
    e.chain += fmt::format("{}{}{}{}={}", i > 1 ? " " : "", sum, sign, term, next);
    sum = next;
  }
  e.answer = fmt::format("{}", sum);
  return e;
}

// "mod 13: 5 *7 +4 -9", from left to right.
TaskExample make_modulo_chain(Rng& rng, int operations) {
  TaskExample e;
  int64_t m = uniform_int(rng, 3, 19), value = uniform_int(rng, 0, m - 1);
  e.question = fmt::format("mod {}: {}", m, value);
  for (int i = 0; i < operations; ++i) {
    char op = "+-*"[rng.below(3)];
    int64_t by = uniform_int(rng, op == '*' ? 2 : 1, m - 1);
    int64_t result = op == '+' ? value + by : op == '-' ? value - by : value * by;
    int64_t reduced = (result % m + m) % m;
    e.question += fmt::format(" {}{}", op, by);
    e.chain += fmt::format("{}{}{}{}={}", i ? " " : "", value, op, by, result);
    if (reduced != result) e.chain += fmt::format("={}", reduced);
    value = reduced;
  }
  e.answer = fmt::format("{}", value);
  return e;
}

int64_t power(int64_t base, int exponent) {
  int64_t p = 1;
  while (exponent-- > 0) p *= base;
  return p;
}

// Two multiples of a number, so that most answers are not 1.
TaskExample make_euclid(Rng& rng, int digits) {
  int64_t lowest = power(10, digits - 1), highest = power(10, digits) - 1;
  int64_t divisor = uniform_int(rng, 1, highest / 6);
  auto multiple = [&] {
    return divisor * uniform_int(rng, (lowest + divisor - 1) / divisor, highest / divisor);
  };
  int64_t a = multiple(), b = multiple();
  if (a < b) std::swap(a, b);
  TaskExample e;
  e.question = fmt::format("gcd {} {}", a, b);
  while (b > 0) {
    e.chain += fmt::format("{}{}={}*{}+{}", e.chain.empty() ? "" : " ", a, a / b, b, a % b);
    int64_t rest = a % b;
    a = b;
    b = rest;
  }
  e.answer = fmt::format("{}", a);
  return e;
}

// The digits of n in a base, most significant first.
std::string in_base(int64_t n, int64_t base) {
  std::string digits;
  do {
    digits.insert(0, 1, static_cast<char>('0' + n % base));
    n /= base;
  } while (n > 0);
  return digits;
}

// From base 10 by division (the remainders, last first), to base 10 by Horner's rule.
TaskExample make_base_change(Rng& rng, int digits) {
  int64_t n = uniform_int(rng, digits == 1 ? 1 : power(10, digits - 1), power(10, digits) - 1);
  int64_t base = uniform_int(rng, 2, 9);
  std::string there = in_base(n, base), here = fmt::format("{}", n);
  TaskExample e;
  if (rng.below(2)) {
    e.question = fmt::format("{} from base 10 to {}", here, base);
    e.answer = there;
    for (int64_t rest = n; rest > 0; rest /= base) {
      e.chain += fmt::format("{}{}={}*{}+{}", e.chain.empty() ? "" : " ", rest, rest / base, base,
                             rest % base);
    }
  } else {
    e.question = fmt::format("{} from base {} to 10", there, base);
    e.answer = here;
    int64_t value = there[0] - '0';
    e.chain = there.substr(0, 1);
    for (char digit : there.substr(1)) {
      int64_t next = value * base + (digit - '0');
      e.chain += fmt::format(" {}*{}+{}={}", value, base, digit, next);
      value = next;
    }
  }
  return e;
}

}  // namespace

std::unique_ptr<Task> make_sums() {
  return make_generator({"sums",
                         "additions and subtractions of numbers below 100, from left to right",
                         {2, 16, 5, "numbers"},
                         make_sum_chain,
                         score_number});
}

std::unique_ptr<Task> make_modular() {
  return make_generator({"modular",
                         "operations from left to right modulo a number below 20",
                         {1, 16, 5, "operations"},
                         make_modulo_chain,
                         score_number});
}

std::unique_ptr<Task> make_gcd() {
  return make_generator({"gcd",
                         "the greatest common divisor of two numbers",
                         {1, 6, 3, "digits"},
                         make_euclid,
                         score_number});
}

std::unique_ptr<Task> make_base() {
  return make_generator({"base",
                         "a number written in base 2 to 9 instead of 10, or back",
                         {1, 6, 3, "decimal digits"},
                         make_base_change,
                         score_number});
}

}  // namespace wels
