// Every generator's questions solved again, in another way than the generator does, and every step
// of its chains.
#include "tasks/generators.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "tasks/column_sum.h"
#include "tasks/expression.h"
#include "tasks/plain.h"

namespace wels {
namespace {

// Calls check(example, level) for many seeds at every level.
void for_examples(const std::unique_ptr<Task>& task,
                  const std::function<void(const TaskExample&, int)>& check, int per_level = 40) {
  for (int level = task->levels().lowest; level <= task->levels().highest; ++level) {
    for (int seed = 0; seed < per_level; ++seed) {
      TaskExample e = task->example(static_cast<uint64_t>(seed * 1000 + level), level);
      SCOPED_TRACE(fmt::format("{} level {}: {} | {}", task->name(), level, e.question, e.chain));
      check(e, level);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (std::string_view w : split_words(text)) words.emplace_back(w);
  return words;
}
std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == at) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}
int64_t value_of(const std::string& text) {
  // A sign in front, which expressions do not have.
  bool negative = text.starts_with('-');
  std::optional<Evaluated> v = evaluate_expression(negative ? text.substr(1) : text);
  EXPECT_TRUE(v && v->denominator == 1) << text;
  if (!v) return -999999;
  return negative ? -v->numerator : v->numerator;
}
// All sides of "a+b=c=d" are equal (modulo m if it is given).
void expect_equation(const std::string& text, int64_t m = 0) {
  std::vector<std::string> sides = split(text, '=');
  EXPECT_GE(sides.size(), 2u) << text;
  for (const std::string& side : sides) {
    int64_t difference = value_of(side) - value_of(sides[0]);
    EXPECT_EQ(m ? difference % m : difference, 0) << text;
  }
}

TEST(Parity, IsOddWhereTheOnesAre) {
  for_examples(make_parity(), [](const TaskExample& e, int bits) {
    std::string s = words_of(e.question).at(1);
    EXPECT_EQ(static_cast<int>(s.size()), bits);
    EXPECT_EQ(s.find_first_not_of("01"), std::string::npos);
    EXPECT_EQ(e.answer, fmt::format("{}", std::count(s.begin(), s.end(), '1') % 2));
    ASSERT_EQ(e.chain.size(), s.size());
    for (size_t i = 0; i < s.size(); ++i)
      EXPECT_EQ(e.chain[i] - '0',
                std::count(s.begin(), s.begin() + static_cast<long>(i) + 1, '1') % 2);
  });
}

TEST(State, FollowsEveryCup) {
  for_examples(make_state(), [](const TaskExample& e, int swaps) {
    std::vector<std::string> words = words_of(e.question), chain = words_of(e.chain);
    words.erase(words.begin(), words.begin() + 3);
    ASSERT_EQ(static_cast<int>(words.size()), swaps);
    ASSERT_EQ(chain.size(), words.size());
    std::map<char, char> place = {{'a', '1'}, {'b', '2'}, {'c', '3'}};
    for (size_t i = 0; i < words.size(); ++i) {
      EXPECT_NE(words[i][0], words[i][1]);
      for (auto& [cup, at] : place)
        at = at == words[i][0] ? words[i][1] : at == words[i][1] ? words[i][0] : at;
      for (auto [cup, at] : place) EXPECT_EQ(chain[i].at(static_cast<size_t>(at - '1')), cup);
    }
    EXPECT_EQ(e.answer, chain.back());
  });
}

std::string sum_of(const std::string& a, const std::string& b) {
  __int128 x = 0, y = 0;
  for (char c : a) x = x * 10 + (c - '0');
  for (char c : b) y = y * 10 + (c - '0');
  std::string out;
  for (__int128 s = x + y; s > 0; s /= 10)
    out.insert(0, 1, static_cast<char>('0' + static_cast<int>(s % 10)));
  return out.empty() ? "0" : out;
}
// Checks the columns of a sum, and reads the sum off them.
std::string read_columns(const std::vector<std::string>& columns) {
  std::string sum;
  for (size_t i = 0; i < columns.size(); ++i) {
    expect_equation(columns[i]);
    std::string value = split(columns[i], '=').at(1);
    sum.insert(0, i + 1 < columns.size() ? value.substr(value.size() - 1) : value);
  }
  return sum;
}

TEST(Addition, AddsColumnByColumn) {
  for_examples(make_addition(), [](const TaskExample& e, int digits) {
    std::vector<std::string> numbers = split(e.question, '+');
    ASSERT_EQ(numbers.size(), 2u);
    for (const std::string& n : numbers) EXPECT_EQ(static_cast<int>(n.size()), digits);
    if (digits <= 37) {
      EXPECT_EQ(e.answer, sum_of(numbers[0], numbers[1]));
    }
    std::vector<std::string> columns = words_of(e.chain);
    EXPECT_EQ(static_cast<int>(columns.size()), digits);
    EXPECT_EQ(read_columns(columns), e.answer);
  });
}

TEST(ColumnSum, HandlesNumbersOfDifferentLengths) {
  for (auto [a, b] :
       {std::pair("0", "0"), {"99", "1"}, {"1", "9999"}, {"0", "120"}, {"555", "45"}}) {
    ColumnSum s = add_columns(a, b);
    EXPECT_EQ(s.sum, sum_of(a, b));
    EXPECT_EQ(read_columns(words_of(s.steps)), s.sum);
  }
  EXPECT_EQ(add_columns("37", "1480").steps, "7+0=7 3+8=11 4+1=5 1=1");
}

TEST(Multiplication, GoesByPartialProducts) {
  for_examples(make_multiplication(), [](const TaskExample& e, int digits) {
    std::vector<std::string> numbers = split(e.question, '*');
    ASSERT_EQ(numbers.size(), 2u);
    for (const std::string& n : numbers) EXPECT_EQ(static_cast<int>(n.size()), digits);
    EXPECT_EQ(std::stoull(e.answer), std::stoull(numbers[0]) * std::stoull(numbers[1]));
    std::string task;  // what stands before the last colon, to which "=value" belongs
    for (const std::string& w : words_of(e.chain)) {
      if (w.ends_with(':')) {
        task = w.substr(0, w.size() - 1);
      } else if (w.starts_with('=')) {
        // Beyond what expressions hold for the longest.
        if (digits <= 7) expect_equation(task + w);
      } else {
        expect_equation(w);
      }
    }
    EXPECT_TRUE(e.chain.ends_with("=" + e.answer));
  });
}

TEST(Sums, NeverFallBelowZeroAndEndAtTheAnswer) {
  for_examples(make_sums(), [](const TaskExample& e, int numbers) {
    EXPECT_EQ(static_cast<int>(evaluate_expression(e.question)->numbers.size()), numbers);
    EXPECT_EQ(value_of(e.question), std::stoll(e.answer));
    EXPECT_EQ(e.question.find("--"), std::string::npos);
    for (const std::string& w : words_of(e.chain)) {
      expect_equation(w);
      EXPECT_EQ(w.find("=-"), std::string::npos);
    }
    EXPECT_TRUE(e.chain.ends_with("=" + e.answer));
  });
}

// `expression` with `operation`, in brackets or without, replaced by `value` where that first gives
// what `after` begins with.
bool replaces_to(const std::string& expression, const std::string& operation,
                 const std::string& value, const std::string& after) {
  for (const std::string& what : {"(" + operation + ")", operation}) {
    for (size_t at = expression.find(what); at != std::string::npos;
         at = expression.find(what, at + 1)) {
      if (std::string(expression).replace(at, what.size(), value) == after) return true;
    }
  }
  return false;
}

// Column k of "14+63: 4+3=7 1+6=7" makes digit k of the value, from the right.
void expect_columns(const std::vector<std::string>& columns, const std::string& operation,
                    const std::string& value) {
  size_t digits = 0;
  for (const std::string& side : split(operation, operation.find('+') != std::string::npos ? '+' : '-'))
    digits = std::max(digits, side.size());
  EXPECT_EQ(columns.size(), digits) << operation;
  int64_t sum = std::stoll(value);
  for (const std::string& column : columns) {
    expect_equation(column);
    EXPECT_EQ(std::stoll(split(column, '=').at(1)) % 10, sum % 10) << operation;
    sum /= 10;
  }
}

TEST(Expressions, WorkOutOneOperationAtATime) {
  for_examples(make_expressions(), [](const TaskExample& e, int operations) {
    EXPECT_EQ(value_of(e.question), std::stoll(e.answer));
    std::string now = e.question;
    int done = 0;
    std::vector<std::string> words = words_of(e.chain);
    for (size_t i = 0; i < words.size(); ++i) {
      std::string operation = words[i], value;
      if (operation.back() == ':') {
        operation.pop_back();
        std::vector<std::string> columns;
        while (words.at(++i)[0] != '=') columns.push_back(words[i]);
        value = words[i].substr(1);
        expect_columns(columns, operation, value);
        EXPECT_EQ(operation.find('*'), std::string::npos);
      } else if (std::vector<std::string> sides = split(operation, '='); sides.size() == 2) {
        operation = sides[0], value = sides[1];
        EXPECT_TRUE(operation.size() == 3 || operation.find('*') != std::string::npos) << e.chain;
      } else {  // what the operation before it left
        now = words[i];
        continue;
      }
      EXPECT_EQ(evaluate_expression(operation)->numbers.size(), 2u);
      expect_equation(operation + "=" + value);
      ++done;
      std::string after = i + 1 < words.size() ? words[i + 1] : e.answer;
      after = after.substr(0, after.find_first_of("=:"));
      EXPECT_TRUE(replaces_to(now, operation, value, after)) << e.question << ": " << e.chain;
      now = after;
    }
    EXPECT_EQ(done, operations);
    EXPECT_EQ(now, e.answer);
  });
}

TEST(ColumnSum, SubtractsWithBorrows) {
  for (int a = 0; a <= 1200; a += 7) {
    for (int b = 0; b <= a; b += 3) {
      ColumnSum c = subtract_columns(std::to_string(a), std::to_string(b));
      EXPECT_EQ(c.sum, std::to_string(a - b));
      for (const std::string& column : words_of(c.steps)) expect_equation(column);
    }
  }
  EXPECT_EQ(subtract_columns("100", "1").steps, "10-1=9 10-1=9 1-1=0");
}

TEST(Expressions, ShowTheirOrderInTheirText) {
  // No "a+(b+c)" written as a+b+c: the same text always has the same chain.
  std::map<std::string, std::string> chains;
  auto task = make_expressions();
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    TaskExample e = task->example(seed, 3);
    EXPECT_EQ(chains.emplace(e.question, e.chain).first->second, e.chain);
  }
  EXPECT_LT(chains.size(), 20000u);  // some came twice
}

TEST(Modular, StaysBelowTheModulus) {
  for_examples(make_modular(), [](const TaskExample& e, int operations) {
    std::vector<std::string> words = words_of(e.question), chain = words_of(e.chain);
    int64_t m = std::stoll(words.at(1));
    ASSERT_EQ(static_cast<int>(words.size()), operations + 3);
    // Without any reduction on the way, as far as that fits.
    __int128 value = std::stoll(words[2]);
    for (size_t i = 3; i < words.size(); ++i) {
      int64_t by = std::stoll(words[i].substr(1));
      value = words[i][0] == '+' ? value + by : words[i][0] == '-' ? value - by : value * by;
    }
    EXPECT_EQ(std::stoll(e.answer), static_cast<int64_t>((value % m + m) % m));
    ASSERT_EQ(static_cast<int>(chain.size()), operations);
    for (const std::string& w : chain) expect_equation(w, m);
    EXPECT_TRUE(e.chain.ends_with("=" + e.answer));
  });
}

TEST(Gcd, IsEuclids) {
  for_examples(make_gcd(), [](const TaskExample& e, int digits) {
    std::vector<std::string> words = words_of(e.question);
    EXPECT_EQ(static_cast<int>(words.at(1).size()), digits);
    EXPECT_EQ(static_cast<int>(words.at(2).size()), digits);
    EXPECT_EQ(std::stoll(e.answer), std::gcd(std::stoll(words[1]), std::stoll(words[2])));
    for (const std::string& w : words_of(e.chain)) expect_equation(w);
    EXPECT_TRUE(e.chain.ends_with("*" + e.answer + "+0"));
  });
}

TEST(Base, ReadsBackAsTheSameNumber) {
  int there = 0, back = 0;
  for_examples(make_base(), [&](const TaskExample& e, int digits) {
    std::vector<std::string> words = words_of(e.question);  // N from base A to B
    int from = std::stoi(words.at(3)), to = std::stoi(words.at(5));
    ++(from == 10 ? there : back);
    EXPECT_EQ(std::stoll(words[0], nullptr, from), std::stoll(e.answer, nullptr, to));
    EXPECT_EQ(static_cast<int>((from == 10 ? words[0] : e.answer).size()), digits);
    std::string remainders;
    for (const std::string& w : words_of(e.chain)) {
      if (w.find('=') != std::string::npos) expect_equation(w);
      remainders.insert(0, 1, w.back());
    }
    if (from == 10) {
      EXPECT_EQ(remainders, e.answer);
    } else {
      EXPECT_TRUE(("=" + e.chain).ends_with("=" + e.answer));
    }
  });
  EXPECT_GT(there, 50);
  EXPECT_GT(back, 50);
}

TEST(Sorting, EndsWithAllNumbersInOrder) {
  for_examples(make_sorting(), [](const TaskExample& e, int count) {
    std::vector<std::string> words = words_of(e.question);
    words.erase(words.begin());
    ASSERT_EQ(static_cast<int>(words.size()), count);
    std::stable_sort(words.begin(), words.end(),
                     [](const auto& a, const auto& b) { return std::stoi(a) < std::stoi(b); });
    EXPECT_EQ(words_of(e.answer), words);
    std::vector<std::string> steps = split(e.chain, ',');
    ASSERT_EQ(static_cast<int>(steps.size()), count);
    for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(words_of(steps[i]).size(), i + 1);
    EXPECT_EQ(words_of(steps.back()), words);
  });
}

TEST(Sorting, TakesListsOnly) {
  auto task = make_sorting();
  TaskExample e = task->example(3, 3);
  std::vector<std::string> n = words_of(e.answer);
  for (const char* between : {" ", ", ", ",", "; ", " < ", "<=", "\n"})
    EXPECT_EQ(task->score(e, fmt::format("{}", fmt::join(n, between))), 1) << between;
  EXPECT_EQ(task->score(e, fmt::format("[{}].", fmt::join(n, ", "))), 1);
  for (const char* between : {".", "/", "-", " > ", "=", " or ", ":", "+"})
    EXPECT_EQ(task->score(e, fmt::format("{}", fmt::join(n, between))), 0) << between;
}

// All shortest distances of a graph, by Floyd and Warshall.
using Distances = std::map<std::pair<std::string, std::string>, int>;
Distances all_distances(const std::set<std::string>& nodes,
                        const std::set<std::pair<std::string, std::string>>& edges) {
  Distances d;
  for (const auto& a : nodes) {
    for (const auto& b : nodes)
      d[{a, b}] = a == b ? 0 : edges.count({a, b}) || edges.count({b, a}) ? 1 : 1000;
  }
  for (const auto& m : nodes) {
    for (const auto& a : nodes) {
      for (const auto& b : nodes) d[{a, b}] = std::min(d[{a, b}], d[{a, m}] + d[{m, b}]);
    }
  }
  return d;
}

std::string capital(const std::string& letter) {
  return std::string(1, static_cast<char>(letter.at(0) - 'a' + 'A'));
}

// The chain of a path reads all edges for every layer of nodes and marks those that lead from it to
// a node not seen before, up to the one that finds the end.
void expect_search(const std::string& chain, const std::vector<std::string>& edges,
                   const std::string& from, const std::string& to) {
  std::string layer = from, seen = from, found;
  std::vector<std::string> words = words_of(chain);
  size_t i = 0;
  while (seen.find(to) == std::string::npos) {
    ASSERT_EQ(words.at(i++), layer + ":") << chain;
    for (size_t e = 0; e < edges.size() && seen.find(to) == std::string::npos; ++e) {
      std::string word = words.at(i++);
      std::vector<std::string> parts = split(word, ','), ends = split(edges[e], '-');
      EXPECT_EQ(parts[0], edges[e]) << chain;
      bool in[2], old[2];
      for (size_t k : {0u, 1u}) {
        in[k] = layer.find(ends[k]) != std::string::npos;
        old[k] = seen.find(ends[k]) != std::string::npos;
      }
      size_t a = in[0] && !old[1] ? 0 : 1;
      bool leads = in[a] && !old[1 - a];
      ASSERT_EQ(parts.size(), leads ? 2u : 1u) << word << " in " << chain;
      if (!leads) continue;
      EXPECT_EQ(parts[1], capital(ends[1 - a]) + ends[a]) << chain;
      seen += ends[1 - a];
      found += ends[1 - a];
    }
    layer = std::exchange(found, "");
    if (seen.find(to) == std::string::npos) {
      EXPECT_EQ(words.at(i++), ";") << chain;
    }
  }
  // The way back, in pairs that stand in it already.
  std::string node = to;
  for (; i < words.size() && node != from; ++i) {
    EXPECT_EQ(words[i].substr(0, 1), capital(node)) << chain;
    EXPECT_LT(chain.find("," + words[i]), chain.size()) << chain;
    node = words[i].substr(1);
  }
  EXPECT_EQ(node, from) << chain;
  EXPECT_EQ(i, words.size()) << chain;
}

TEST(Path, IsAShortestWay) {
  auto task = make_path();
  double steps = 0, examples = 0;
  for_examples(
      task,
      [&](const TaskExample& e, int nodes) {
        size_t colon = e.question.find(": ");
        std::set<std::string> names;
        std::set<std::pair<std::string, std::string>> edges;
        std::vector<std::string> listed = words_of(e.question.substr(5, colon - 5));
        for (const std::string& w : listed) {
          std::vector<std::string> ends = split(w, '-');
          EXPECT_TRUE(edges.emplace(ends.at(0), ends.at(1)).second);
          names.insert(ends.begin(), ends.end());
        }
        EXPECT_EQ(static_cast<int>(names.size()), nodes);
        std::vector<std::string> ask = words_of(e.question.substr(colon + 1)),
                                 way = words_of(e.answer);
        EXPECT_EQ(way.front(), ask.at(0));
        EXPECT_EQ(way.back(), ask.at(2));
        EXPECT_EQ(static_cast<int>(way.size()) - 1,
                  (all_distances(names, edges)[{way.front(), way.back()}]));
        for (size_t i = 1; i < way.size(); ++i)
          EXPECT_TRUE(edges.count({way[i - 1], way[i]}) || edges.count({way[i], way[i - 1]}));
        expect_search(e.chain, listed, way.front(), way.back());
        std::vector<std::string> back(way.rbegin(), way.rend());
        EXPECT_EQ(e.chain.substr(e.chain.size() - 1), way.front());
        steps += static_cast<double>(way.size() - 1);
        ++examples;
        // Longer ways and ways beside the edges are wrong; other ways to write it are right.
        EXPECT_EQ(task->score(e, e.answer + " " + way[way.size() - 2] + " " + way.back()), 0);
        EXPECT_EQ(task->score(e, way.front() + " " + way.back()), way.size() == 2 ? 1 : 0);
        EXPECT_EQ(task->score(e, fmt::format("{}", fmt::join(way, "->"))), 1);
        EXPECT_EQ(task->score(e, fmt::format("{}", fmt::join(way, "-"))), 1);
        EXPECT_EQ(task->score(e, fmt::format("{}", fmt::join(back, " "))), 0);
      },
      20);
  EXPECT_GT(steps / examples, 2.5);
}

TEST(Maze, IsAShortestWayThroughOpenCells) {
  auto task = make_maze();
  for_examples(
      task,
      [&](const TaskExample& e, int side) {
        std::vector<std::string> rows = words_of(e.question);
        rows.erase(rows.begin());
        ASSERT_EQ(static_cast<int>(rows.size()), side);
        auto open = [&](int r, int c) {
          return r >= 0 && c >= 0 && r < side && c < side &&
                 rows[static_cast<size_t>(r)].at(static_cast<size_t>(c)) == '.';
        };
        // Distances by relaxing until nothing changes.
        std::map<std::pair<int, int>, int> d = {{{0, 0}, 0}};
        for (bool changed = true; changed;) {
          changed = false;
          for (auto [at, far] : std::map(d)) {
            for (auto [dr, dc] : {std::pair(0, 1), {1, 0}, {0, -1}, {-1, 0}}) {
              std::pair<int, int> to = {at.first + dr, at.second + dc};
              if (!open(to.first, to.second) || (d.count(to) && d[to] <= far + 1)) continue;
              d[to] = far + 1;
              changed = true;
            }
          }
        }
        EXPECT_EQ(static_cast<int>(e.answer.size()), (d.at({side - 1, side - 1})));
        int r = 0, c = 0;
        std::string way = "00";
        for (char m : e.answer) {
          r += m == 'D' ? 1 : m == 'U' ? -1 : 0;
          c += m == 'R' ? 1 : m == 'L' ? -1 : 0;
          EXPECT_TRUE(open(r, c));
          way = fmt::format("{}{}<", r, c) + way;
        }
        EXPECT_EQ(words_of(e.chain).back(), way);
        EXPECT_EQ(task->score(e, "LR" + e.answer), 0);
        EXPECT_EQ(task->score(e, e.answer.substr(1)), 0);
        EXPECT_EQ(task->score(e, e.answer + "RL"), 0);
        EXPECT_EQ(task->score(e, fmt::format("{}", fmt::join(e.answer, " "))), 1);
      },
      20);
}

// The calculations of a search are right and made of numbers that are there.
void expect_search(const std::unique_ptr<Task>& task, const TaskExample& e) {
  std::vector<std::string> words = words_of(e.question);
  int64_t target = std::stoll(words.at(1));
  std::multiset<int64_t> numbers;
  for (size_t i = 2; i < words.size(); ++i) numbers.insert(std::stoll(words[i]));
  std::optional<Evaluated> v = evaluate_expression(e.answer);
  ASSERT_TRUE(v.has_value());
  EXPECT_EQ(v->numerator, target);
  EXPECT_EQ(v->denominator, 1);
  EXPECT_EQ(std::multiset<int64_t>(v->numbers.begin(), v->numbers.end()), numbers);

  size_t yes = e.chain.find(" yes check ");
  ASSERT_NE(yes, std::string::npos);
  expect_equation(e.chain.substr(yes + 11));
  EXPECT_TRUE(e.chain.substr(yes + 11).starts_with(e.answer + "="));
  EXPECT_TRUE(e.chain.ends_with(fmt::format("={}", target)));
  // Brackets hold what is left after the calculation before them; of two numbers every result
  // follows.
  std::vector<std::multiset<int64_t>> left = {numbers};
  std::vector<std::string> steps = words_of(e.chain.substr(0, yes));
  bool searched = e.chain.find('(') < yes || numbers.size() == 2;
  for (size_t i = 0; i < steps.size() && searched; ++i) {
    ASSERT_FALSE(left.empty());
    std::multiset<int64_t> rest = left.back();
    if (steps[i] == "back") {
      left.pop_back();
      continue;
    }
    if (rest.size() == 2) {
      int64_t a = *rest.rbegin(), b = *rest.begin(), result = std::stoll(steps[i].substr(1));
      std::map<char, int64_t> results = {{'+', a + b}, {'-', a - b}, {'*', a * b}, {'/', a / b}};
      EXPECT_EQ(result, results.at(steps[i][0])) << steps[i];
      EXPECT_TRUE(steps[i][0] != '/' || a % b == 0);
      size_t against = steps[i].find(':');
      EXPECT_EQ(against != std::string::npos,
                std::to_string(result).size() == std::to_string(target).size());
      if (against != std::string::npos) {
        EXPECT_EQ(std::stoll(steps[i].substr(against + 1)), target);
      }
      EXPECT_EQ(result == target, i + 1 == steps.size()) << e.chain;
      continue;
    }
    expect_equation(steps[i]);
    size_t op = steps[i].find_first_of("+-*/"), equals = steps[i].find('=');
    for (int64_t n : {std::stoll(steps[i].substr(0, op)),
                      std::stoll(steps[i].substr(op + 1, equals - op - 1))}) {
      ASSERT_TRUE(rest.count(n)) << steps[i];
      rest.erase(rest.find(n));
    }
    rest.insert(std::stoll(steps[i].substr(equals + 1)));
    std::multiset<int64_t> listed;
    do {
      ++i;
      listed.insert(std::stoll(steps[i].substr(steps[i].starts_with('(') ? 1 : 0)));
    } while (!steps[i].ends_with(')'));
    EXPECT_EQ(listed, rest);
    left.push_back(rest);
  }
  for (size_t end : e.dead_ends) EXPECT_TRUE(e.chain.substr(0, end).ends_with(" back"));
  EXPECT_EQ(task->score(e, fmt::format("{}={}", e.answer, target)), 1);
  EXPECT_EQ(task->score(e, fmt::format("{} = {}", target, e.answer)), 1);
  for (const char* wrong : {"=9999 or 5", "=", "=x", "=1", "=2=2"})
    EXPECT_EQ(task->score(e, e.answer + wrong), 0) << wrong;
  EXPECT_EQ(task->score(e, fmt::format("{}={} or 5", e.answer, target)), 0);
  EXPECT_EQ(task->score(e, fmt::format("{0}={0}", e.answer)), 0);
  EXPECT_EQ(task->score(e, e.answer + "+0"), 0);
  EXPECT_EQ(task->score(e, e.answer + "*1"), 0);
  EXPECT_EQ(task->score(e, fmt::format("{}", target)), 0);
}

TEST(Countdown, SearchesAndChecks) {
  auto task = make_countdown();
  int backs = 0, examples = 0;
  for_examples(task, [&](const TaskExample& e, int count) {
    EXPECT_EQ(static_cast<int>(words_of(e.question).size()), count + 2);
    expect_search(task, e);
    if (count == 3) {
      ++examples;
      backs += !e.dead_ends.empty();
    }
  });
  EXPECT_GT(backs, examples / 4);
}

TEST(Countdown, IsGivenUpAtDeadEnds) {
  auto task = make_countdown();
  int given_up = 0, dead_ends = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    TaskExample e = task->example(seed, 3);
    Rng rng(7, seed);
    TaskExample told = with_patience(e, 0.5, rng);
    if (told.answer != "none") {
      EXPECT_EQ(told.chain, e.chain);
      EXPECT_EQ(task->score(e, told.answer), 1);
      dead_ends += static_cast<int>(e.dead_ends.size());
      continue;
    }
    ++given_up;
    EXPECT_EQ(task->score(e, told.answer), 0);
    size_t end = told.chain.size() - std::string(" stop").size();
    EXPECT_EQ(told.chain, e.chain.substr(0, end) + " stop");
    auto at = std::find(e.dead_ends.begin(), e.dead_ends.end(), end);
    ASSERT_NE(at, e.dead_ends.end()) << told.chain;
    dead_ends += static_cast<int>(at - e.dead_ends.begin()) + 1;
  }
  EXPECT_NEAR(given_up, 0.5 * dead_ends, 3 * std::sqrt(0.25 * dead_ends));
}

TEST(Make24, SearchesAndChecks) {
  auto task = make_24();
  for_examples(task, [&](const TaskExample& e, int largest) {
    std::vector<std::string> words = words_of(e.question);
    EXPECT_EQ(words.at(1), "24:");
    ASSERT_EQ(words.size(), 6u);
    for (size_t i = 2; i < 6; ++i) EXPECT_LE(std::stoi(words[i]), largest);
    expect_search(task, e);
  });
}

TEST(Make24, TakesFractionsOnTheWayAndRefusesOtherNumbers) {
  auto task = make_24();
  TaskExample e{"make 24: 3 3 8 8", "", "", "{}"};
  EXPECT_EQ(task->score(e, "8/(3-8/3)"), 1);
  EXPECT_EQ(task->score(e, "8÷(3−8÷3) = 24"), 1);
  EXPECT_EQ(task->score(e, "8*3"), 0);
  EXPECT_EQ(task->score(e, "8*3*8/8"), 0);
  EXPECT_EQ(task->score(e, "38-8-3*2"), 0);
  EXPECT_EQ(task->score(e, "8/(3-3)*8"), 0);
}

// A statement's sentence read again: whether it holds for the kinds of people ("ABC" -> true:
// knight).
bool holds(const std::string& text, const std::map<char, bool>& knight) {
  std::vector<std::string> w = words_of(text);
  if (w.at(1) == "is") return knight.at(w[0][0]) == (w.at(3) == "knight");
  return (knight.at(w[0][0]) == knight.at(w.at(2)[0])) == (w.back() == "alike");
}

TEST(Knights, HaveOneSolution) {
  auto task = make_knights();
  for_examples(task, [&](const TaskExample& e, int people) {
    std::vector<std::string> sentences = split(e.question, '.');
    sentences.pop_back();
    ASSERT_EQ(static_cast<int>(sentences.size()), people);
    std::string letters;
    for (std::string& s : sentences) {
      s = trimmed(s);
      letters += s[0];
    }
    EXPECT_EQ(std::set<char>(letters.begin(), letters.end()).size(), letters.size());
    std::set<std::string> solutions;
    for (int kinds = 0; kinds < 1 << people; ++kinds) {
      std::map<char, bool> knight;
      std::string text;
      for (char c : letters) {
        knight[c] = kinds >> letters.find(c) & 1;
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", c, knight[c] ? "knight" : "knave");
      }
      bool fits = std::all_of(sentences.begin(), sentences.end(), [&](const std::string& s) {
        return holds(s.substr(7), knight) == knight.at(s[0]);
      });
      if (fits) solutions.insert(text);
    }
    EXPECT_EQ(solutions, std::set<std::string>{e.answer});
    // The chain's last assignment is the answer.
    size_t colon = e.chain.rfind(':'), n = letters.size();
    std::string last = e.chain.substr(colon - n, n);
    for (size_t p = 0; p < n; ++p)
      EXPECT_EQ(last[p] == 'k',
                e.answer.find(fmt::format("{} knight", letters[p])) != std::string::npos);
    EXPECT_TRUE(e.chain.ends_with("ok yes"));
    std::string other = e.answer;
    size_t at = other.find("knight");
    other = at == std::string::npos ? other.replace(other.find("knave"), 5, "knight")
                                    : other.replace(at, 6, "knave");
    EXPECT_EQ(task->score(e, other), 0);
  });
}

bool valid_sudoku(const std::string& g) {  // 16 digits
  for (int i = 0; i < 4; ++i) {
    std::set<char> row, column, box;
    for (int j = 0; j < 4; ++j) {
      row.insert(g[static_cast<size_t>(i * 4 + j)]);
      column.insert(g[static_cast<size_t>(j * 4 + i)]);
      box.insert(g[static_cast<size_t>((i / 2 * 2 + j / 2) * 4 + i % 2 * 2 + j % 2)]);
    }
    if (row.size() + column.size() + box.size() != 12) return false;
  }
  return true;
}

TEST(Sudoku, HasOneSolution) {
  // All grids there are: rows are permutations.
  std::vector<std::string> rows, grids;
  for (std::string r = "1234";;) {
    rows.push_back(r);
    if (!std::next_permutation(r.begin(), r.end())) break;
  }
  for (const auto& a : rows) {
    for (const auto& b : rows) {
      for (const auto& c : rows) {
        for (const auto& d : rows) {
          if (valid_sudoku(a + b + c + d)) grids.push_back(a + b + c + d);
        }
      }
    }
  }
  ASSERT_EQ(grids.size(), 288u);
  auto joined = [](std::vector<std::string> w) { return fmt::format("{}", fmt::join(w, "")); };
  auto task = make_sudoku();
  for_examples(task, [&](const TaskExample& e, int empty) {
    std::vector<std::string> question = words_of(e.question);
    question.erase(question.begin());
    std::string given = joined(question), answer = joined(words_of(e.answer));
    EXPECT_EQ(std::count(given.begin(), given.end(), '.'), empty);
    std::vector<std::string> fitting;
    for (const std::string& g : grids) {
      bool fits = true;
      for (size_t i = 0; i < 16; ++i) fits = fits && (given[i] == '.' || given[i] == g[i]);
      if (fits) fitting.push_back(g);
    }
    EXPECT_EQ(fitting, std::vector<std::string>{answer});
    // What the chain sets where nothing is tried is the solution.
    if (e.chain.find("try") == std::string::npos) {
      std::vector<std::string> steps = words_of(e.chain);
      EXPECT_EQ(static_cast<int>(steps.size()), empty);
      for (const std::string& s : steps)
        EXPECT_EQ(s.back(), answer[static_cast<size_t>((s[0] - '1') * 4 + s[1] - '1')]);
    }
  });
}

// The numbers of a text, in order.
std::vector<int64_t> numbers_in(const std::string& text) {
  std::vector<int64_t> numbers;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] < '0' || text[i] > '9') continue;
    numbers.push_back(std::stoll(text.substr(i)));
    while (i < text.size() && text[i] >= '0' && text[i] <= '9') ++i;
  }
  return numbers;
}

// A story's sentence read for its meaning.
int64_t told(const std::string& s, int64_t have) {
  auto says = [&](const char* word) { return s.find(word) != std::string::npos; };
  std::vector<int64_t> n = numbers_in(s);
  if (n.size() == 2) return have + n[0] * n[1];
  if (says("boxes") || says("平均")) return have % n.at(0) == 0 ? have / n[0] : -1;
  if (n.empty()) return says("half") || says("一半") ? have / 2 : have * 2;
  bool less = says("loses") || says("sells") || says("丢") || says("卖") || says("送给") ||
              (says("gives") && s.find(" to ") != std::string::npos);
  return less ? have - n[0] : have + n[0];
}

TEST(Words, TellWhatTheChainCalculates) {
  for (bool zh : {false, true}) {
    for_examples(zh ? make_words_zh() : make_words_en(), [&](const TaskExample& e, int events) {
      std::string text = e.question;
      for (size_t at; zh && (at = text.find("。")) != std::string::npos;) text.replace(at, 3, ".");
      std::vector<std::string> sentences = split(text, '.');
      ASSERT_EQ(static_cast<int>(sentences.size()), events + 2);
      EXPECT_TRUE(sentences.back().ends_with(zh ? "？" : "?"));
      EXPECT_EQ(text.find('{'), std::string::npos);
      int64_t have = numbers_in(sentences[0]).at(0);
      for (int i = 1; i <= events; ++i) {
        have = told(sentences[static_cast<size_t>(i)], have);
        EXPECT_GT(have, 0);
      }
      EXPECT_EQ(std::stoll(e.answer), have);
      EXPECT_EQ(numbers_in(e.chain).back(), have);
    });
  }
}

TEST(Expression, IsWrittenWithTheBracketsItNeeds) {
  auto n = number_expression;
  auto text = [](const ExpressionRef& e) { return expression_text(*e); };
  EXPECT_EQ(text(binary_expression(n(9), '-', binary_expression(n(4), '-', n(1)))), "9-(4-1)");
  EXPECT_EQ(text(binary_expression(binary_expression(n(9), '-', n(4)), '-', n(1))), "9-4-1");
  EXPECT_EQ(text(binary_expression(binary_expression(n(1), '+', n(2)), '*', n(3))), "(1+2)*3");
  EXPECT_EQ(text(binary_expression(n(8), '/', binary_expression(n(2), '*', n(2)))), "8/(2*2)");
  EXPECT_EQ(text(binary_expression(n(1), '+', binary_expression(n(2), '*', n(3)))), "1+2*3");
  EXPECT_EQ(reduction_steps(binary_expression(n(1), '+', binary_expression(n(2), '*', n(3))), "="),
            "1+6=7");
  EXPECT_EQ(reduction_steps(n(1), "="), "");
  EXPECT_EQ(worked_steps(binary_expression(n(1), '+', binary_expression(n(2), '*', n(3)))),
            "2*3=6 1+6=7");
  EXPECT_EQ(worked_steps(binary_expression(n(2), '*', n(3))), "2*3=6");
  EXPECT_EQ(worked_steps(binary_expression(binary_expression(n(4), '*', n(8)), '-', n(7))),
            "4*8=32 32-7: 12-7=5 3-1=2 =25");
  EXPECT_EQ(worked_steps(n(1)), "");
}

TEST(EvaluateExpression, KnowsPrecedenceAndFractions) {
  auto value = [](const char* text) {
    std::optional<Evaluated> v = evaluate_expression(text);
    return v ? fmt::format("{}/{}", v->numerator, v->denominator) : "none";
  };
  EXPECT_EQ(value("1+2*3"), "7/1");
  EXPECT_EQ(value(" ( 1 + 2 ) * 3 = 9"), "9/1");
  EXPECT_EQ(value("1/2+1/3"), "5/6");
  EXPECT_EQ(value("2-5"), "-3/1");
  EXPECT_EQ(value("8÷2×4"), "16/1");
  for (const char* bad : {"", "1+", "(1", "1)", "1 2", "1/0", "1/(2-2)", "-", "a", "1**2", "()",
                          "9999999999999999999", "999999999999*999999999999", "=5"})
    EXPECT_EQ(value(bad), "none") << bad;
  EXPECT_EQ(value((std::string(100, '(') + "1" + std::string(100, ')')).c_str()), "none");
}

}  // namespace
}  // namespace wels
