// Countdown and 24: numbers to be combined to a target. The chain is a search in the manner of
// Stream of Search (arXiv 2404.03683): tries with their failures ("no", "back"), and a check of
// what was found. The order of tries is random and a search that gets long is started over in
// another order, so that chains stay within some 100 to 400 digits and words.
#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "tasks/expression.h"
#include "tasks/generator.h"
#include "tasks/generators.h"
#include "tasks/plain.h"

namespace wels {
namespace {

using Numbers = std::vector<ExpressionRef>;
constexpr int64_t kMostValue = 9999;
constexpr int kOrders = 40;   // random orders tried for a search that is short enough
constexpr size_t kWidth = 3;  // tries at a point below the first one

// Two of the numbers and what they become. Only whole numbers above 0, nothing that changes nothing
// (x*1, x/1), and of equal numbers only one.
struct Move {
  size_t first, second;
  char op;
};
std::vector<Move> moves_of(const Numbers& numbers) {
  std::vector<Move> moves;
  for (size_t i = 0; i < numbers.size(); ++i) {
    for (size_t j = i + 1; j < numbers.size(); ++j) {
      size_t x = i, y = j;
      if (numbers[x]->value < numbers[y]->value) std::swap(x, y);
      int64_t a = numbers[x]->value, b = numbers[y]->value;
      bool seen = std::any_of(moves.begin(), moves.end(), [&](const Move& m) {
        return numbers[m.first]->value == a && numbers[m.second]->value == b;
      });
      if (seen) continue;
      if (a + b <= kMostValue) moves.push_back({x, y, '+'});
      if (a > b) moves.push_back({x, y, '-'});
      if (b > 1 && a * b <= kMostValue) moves.push_back({x, y, '*'});
      if (b > 1 && a % b == 0) moves.push_back({x, y, '/'});
    }
  }
  return moves;
}
Numbers after(const Numbers& numbers, const Move& m) {
  Numbers rest;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i != m.first && i != m.second) rest.push_back(numbers[i]);
  }
  rest.push_back(binary_expression(numbers[m.first], m.op, numbers[m.second]));
  return rest;
}
std::string calculation(const Numbers& numbers, const Move& m) {
  return fmt::format("{}{}{}=", numbers[m.first]->value, m.op, numbers[m.second]->value);
}

// All ways there are, in order; null: none.
ExpressionRef solve(const Numbers& numbers, int64_t target) {
  if (numbers.size() == 1) return numbers[0]->value == target ? numbers[0] : nullptr;
  for (const Move& m : moves_of(numbers)) {
    if (ExpressionRef found = solve(after(numbers, m), target)) return found;
  }
  return nullptr;
}

// One search in random order, written down.
class Search {
 public:
  Search(int64_t target, size_t most_calculations, Rng& rng)
      : target_(target), left_(most_calculations), rng_(rng) {}

  // Null: nothing found, or out of calculations.
  ExpressionRef run(const Numbers& numbers) { return visit(numbers, true); }
  const std::string& chain() const { return chain_; }

 private:
  ExpressionRef visit(const Numbers& numbers, bool first) {
    std::vector<Move> moves = moves_of(numbers);
    bool last = numbers.size() == 2;
    if (!last) shuffle(moves, rng_);
    if (!first && !last && moves.size() > kWidth) moves.resize(kWidth);
    for (const Move& m : moves) {
      if (left_ == 0) return nullptr;
      --left_;
      Numbers rest = after(numbers, m);
      int64_t value = rest.back()->value;
      chain_ += fmt::format("{}{}{}", chain_.empty() ? "" : " ", calculation(numbers, m), value);
      if (last && value == target_) return rest.back();
      if (last) {
        chain_ += " no";
        continue;
      }
      chain_ += " (";
      for (size_t i = 0; i < rest.size(); ++i)
        chain_ += fmt::format("{}{}", i ? " " : "", rest[i]->value);
      chain_ += ")";
      if (ExpressionRef found = visit(rest, false)) return found;
    }
    chain_ += " back";
    return nullptr;
  }

  int64_t target_;
  size_t left_;
  Rng& rng_;
  std::string chain_;
};

// The calculations of an expression, innermost first, without a detour.
void write_calculations(const Expression& e, std::string& out) {
  if (e.op == 0) return;
  write_calculations(*e.left, out);
  write_calculations(*e.right, out);
  out += fmt::format("{}{}{}{}={}", out.empty() ? "" : " ", e.left->value, e.op, e.right->value,
                     e.value);
}

// solution: one way to the target.
TaskExample example_of(const char* name, int64_t target, const Numbers& numbers,
                       const ExpressionRef& solution, Rng& rng) {
  TaskExample e;
  e.question = fmt::format("{} {}:", name, target);
  for (const ExpressionRef& n : numbers) e.question += fmt::format(" {}", n->value);
  ExpressionRef found;
  for (int order = 0; order < kOrders && !found; ++order) {
    Search search(target, 12 * (numbers.size() - 1), rng);
    found = search.run(numbers);
    e.chain = search.chain();
  }
  if (!found) {
    found = solution;
    e.chain.clear();
    write_calculations(*found, e.chain);
  }
  e.answer = expression_text(*found);
  e.chain += fmt::format(" yes check {}={}", e.answer, reduction_steps(found, "="));
  return e;
}

// The target is what random moves lead to.
TaskExample make_countdown_example(Rng& rng, int count) {
  constexpr int64_t kLarge[] = {25, 50, 75, 100};
  bool small = count <= 4;
  for (;;) {
    Numbers numbers;
    for (int i = 0; i < count; ++i) {
      bool large = !small && i == 0;
      numbers.push_back(number_expression(large ? kLarge[rng.below(4)] : uniform_int(rng, 1, 12)));
    }
    shuffle(numbers, rng);
    Numbers left = numbers;
    while (left.size() > 1) left = after(left, pick(moves_of(left), rng));
    int64_t target = left[0]->value;
    if (target < 10 || target > (small ? 99 : 999)) continue;
    return example_of("countdown", target, numbers, left[0], rng);
  }
}

TaskExample make_24_example(Rng& rng, int largest) {
  constexpr int64_t kTarget = 24;
  for (;;) {
    Numbers numbers;
    for (int i = 0; i < 4; ++i) numbers.push_back(number_expression(uniform_int(rng, 1, largest)));
    if (ExpressionRef solution = solve(numbers, kTarget))
      return example_of("make", kTarget, numbers, solution, rng);
  }
}

// An expression that comes to the target with every number used once. Both stand in the question.
double score_target(const TaskExample& example, std::string_view final) {
  std::optional<Evaluated> value = evaluate_expression(final);
  if (!value || value->denominator != 1) return 0;
  std::vector<std::string_view> words = split_words(example.question);
  std::vector<int64_t> numbers;
  for (size_t i = 1; i < words.size(); ++i) numbers.push_back(std::stoll(std::string(words[i])));
  int64_t target = numbers.front();
  numbers.erase(numbers.begin());
  std::sort(numbers.begin(), numbers.end());
  std::sort(value->numbers.begin(), value->numbers.end());
  return value->numerator == target && value->numbers == numbers ? 1 : 0;
}

}  // namespace

std::unique_ptr<Task> make_countdown() {
  return make_generator({"countdown",
                         "an expression that makes the target of all the numbers, each used once",
                         {2, 6, 3, "numbers"},
                         make_countdown_example,
                         score_target});
}

std::unique_ptr<Task> make_24() {
  return make_generator({"make24",
                         "an expression that makes 24 of four numbers, each used once",
                         {4, 13, 9, "as the largest number"},
                         make_24_example,
                         score_target});
}

}  // namespace wels
