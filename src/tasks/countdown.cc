// Countdown and 24: numbers to be combined to a target. The chain is a search in the manner of
// Stream of Search (arXiv 2404.03683): tries, "back" where one has come to nothing, and a check of
// what was found. Tries stand in the order of the numbers and of + - * /, so that the last one says
// which is next. Of three numbers every try is made; of more a random part of them, drawn again
// where it finds nothing or gets long, so that chains stay within some hundred numbers and words.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "tasks/expression.h"
#include "tasks/generator.h"
#include "tasks/generators.h"
#include "tasks/plain.h"

namespace wels {
namespace {

using Numbers = std::vector<ExpressionRef>;
constexpr int kDraws = 40;       // random searches tried for one that is short enough
constexpr size_t kWidth = 3;     // tries at a point below the first one, of more than three numbers
constexpr double kShare = 0.35;  // of the tries at the first point, of more than three numbers

// Larger results are not tried: no target is above 99 with up to four numbers, 999 with more.
int64_t most_value(size_t numbers) { return numbers <= 4 ? 200 : 9999; }

// Two of the numbers and what they become. Only whole numbers above 0, nothing that changes nothing
// (x*1, x/1), and of equal pairs only one.
struct Move {
  size_t first, second;
  char op;
};
std::vector<Move> moves_of(const Numbers& numbers, int64_t most) {
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
      if (a + b <= most) moves.push_back({x, y, '+'});
      if (a > b) moves.push_back({x, y, '-'});
      if (b > 1 && a * b <= most) moves.push_back({x, y, '*'});
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

// The first way there is, in order; null: none.
ExpressionRef solve(const Numbers& numbers, int64_t target, int64_t most) {
  if (numbers.size() == 1) return numbers[0]->value == target ? numbers[0] : nullptr;
  for (const Move& m : moves_of(numbers, most)) {
    if (ExpressionRef found = solve(after(numbers, m), target, most)) return found;
  }
  return nullptr;
}

// One search, written down.
class Search {
 public:
  Search(const Numbers& numbers, int64_t target, Rng& rng)
      : target_(target),
        most_(most_value(numbers.size())),
        whole_(numbers.size() <= 3),
        left_(whole_ ? SIZE_MAX : 16 * numbers.size()),
        rng_(rng),
        found_(visit(numbers, true)) {}

  const ExpressionRef& found() const { return found_; }  // null: nothing, or too long a search
  const std::string& chain() const { return chain_; }
  const std::vector<size_t>& dead_ends() const { return dead_ends_; }

 private:
  ExpressionRef visit(const Numbers& numbers, bool first) {
    std::vector<Move> moves = moves_of(numbers, most_);
    if (numbers.size() == 2) return last_move(numbers, moves);
    if (!whole_) moves = some_of(moves, first);
    for (const Move& m : moves) {
      if (left_ == 0) return nullptr;
      Numbers rest = after(numbers, m);
      say(fmt::format("{}{}{}={}", numbers[m.first]->value, m.op, numbers[m.second]->value,
                      rest.back()->value));
      if (rest.size() == 2 && rest[0]->value < rest[1]->value) std::swap(rest[0], rest[1]);
      for (size_t i = 0; i < rest.size(); ++i) {
        say(fmt::format("{}{}{}", i == 0 ? "(" : "", rest[i]->value,
                        i + 1 == rest.size() ? ")" : ""));
      }
      if (ExpressionRef found = visit(rest, false)) return found;
    }
    if (!first) go_back();
    return nullptr;
  }
  // What two numbers can become, the operator and the result of each. One with as many digits as
  // the target is held against it, digit beside digit.
  ExpressionRef last_move(const Numbers& numbers, const std::vector<Move>& moves) {
    for (const Move& m : moves) {
      left_ -= left_ > 0;
      ExpressionRef result = after(numbers, m).back();
      std::string value = std::to_string(result->value), target = std::to_string(target_);
      say(m.op + value + (value.size() == target.size() ? ":" + target : ""));
      if (value == target) return result;
    }
    go_back();
    return nullptr;
  }
  void go_back() {
    say("back");
    dead_ends_.push_back(chain_.size());
  }
  void say(const std::string& word) { chain_ += (chain_.empty() ? "" : " ") + word; }
  // Random ones, in order.
  std::vector<Move> some_of(const std::vector<Move>& moves, bool first) {
    std::vector<size_t> chosen(moves.size());
    std::iota(chosen.begin(), chosen.end(), 0);
    shuffle(chosen, rng_);
    double share = std::ceil(kShare * static_cast<double>(moves.size()));
    chosen.resize(std::min(moves.size(), first ? static_cast<size_t>(share) : kWidth));
    std::sort(chosen.begin(), chosen.end());
    std::vector<Move> some;
    for (size_t i : chosen) some.push_back(moves[i]);
    return some;
  }

  int64_t target_, most_;
  bool whole_;
  size_t left_;  // results that may still be written
  Rng& rng_;
  std::string chain_;
  std::vector<size_t> dead_ends_;
  ExpressionRef found_;
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
  for (int draw = 0; draw < kDraws && !found; ++draw) {
    Search search(numbers, target, rng);
    found = search.found();
    e.chain = search.chain();
    e.dead_ends = search.dead_ends();
  }
  if (!found) {
    found = solution;
    e.chain.clear();
    e.dead_ends.clear();
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
    const int64_t most = most_value(numbers.size());
    while (left.size() > 1) left = after(left, pick(moves_of(left, most), rng));
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
    if (ExpressionRef solution = solve(numbers, kTarget, most_value(numbers.size())))
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
