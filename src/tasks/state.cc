// Running state: three cups change places. Composing permutations is the standard hard case for a
// network without a chain; the chain is the order after every swap.
#include <fmt/format.h>

#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

TaskExample make(Rng& rng, int swaps) {
  TaskExample e;
  std::string cups = "abc";
  e.question = "cups abc swap";
  for (int i = 0; i < swaps; ++i) {
    size_t left = rng.below(2), right = left + 1 + rng.below(2 - left);
    e.question += fmt::format(" {}{}", left + 1, right + 1);
    std::swap(cups[left], cups[right]);
    e.chain += (i ? " " : "") + cups;
  }
  e.answer = cups;
  return e;
}

}  // namespace

std::unique_ptr<Task> make_state() {
  return make_generator({"state",
                         "the order of three cups after swaps of places",
                         {1, 40, 10, "swaps"},
                         make,
                         score_text});
}

}  // namespace wels
