// Sorting by insertion: the chain is the sorted beginning after every number.
#include <fmt/format.h>

#include <algorithm>

#include "tasks/generator.h"
#include "tasks/generators.h"

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

}  // namespace

std::unique_ptr<Task> make_sorting() {
  return make_generator({"sorting",
                         "numbers below 100 in ascending order",
                         {2, 16, 6, "numbers"},
                         make,
                         score_words});
}

}  // namespace wels
