// Sorting by insertion: the chain is the sorted beginning after every number.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "tasks/generator.h"
#include "tasks/generators.h"
#include "tasks/plain.h"

namespace wels {
namespace {

TaskExample make(Rng& rng, int numbers) {
  TaskExample e;
  e.question = "sort";
  std::vector<int64_t> sorted;
  for (int i = 0; i < numbers; ++i) {
    int64_t n = uniform_int(rng, 1, 99);
    e.question += fmt::format(" {}", n);
    sorted.insert(std::upper_bound(sorted.begin(), sorted.end(), n), n);
    e.answer = fmt::format("{}", fmt::join(sorted, " "));
    e.chain += (i ? ", " : "") + e.answer;
  }
  return e;
}

// The numbers of a list with blanks, commas, semicolons, "<" or "<=" between them, perhaps in
// brackets. Nullopt: something else stands there.
std::optional<std::vector<std::string>> listed(std::string_view text) {
  std::vector<std::string> numbers;
  char before = ' ';
  for (char c : normalised(text)) {
    bool digit = c >= '0' && c <= '9', was_digit = before >= '0' && before <= '9';
    if (digit && !was_digit) numbers.emplace_back();
    if (digit) {
      numbers.back() += c;
    } else if (std::string_view(" ,;<()[]{}").find(c) == std::string_view::npos &&
               !(c == '=' && before == '<')) {
      return std::nullopt;
    }
    before = c;
  }
  return numbers;
}

double score_list(const TaskExample& example, std::string_view final) {
  std::optional<std::vector<std::string>> given = listed(final);
  return given && *given == *listed(example.answer) ? 1 : 0;
}

}  // namespace

std::unique_ptr<Task> make_sorting() {
  return make_generator(
      {"sorting", "numbers below 100 in ascending order", {2, 16, 6, "numbers"}, make, score_list});
}

}  // namespace wels
