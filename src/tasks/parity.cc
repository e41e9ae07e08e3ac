// Parity of a string of bits: the smallest task that one step of a small network cannot do and a
// chain can. The chain is the parity so far, one digit per bit (arXiv 2510.11495).
#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

TaskExample make(Rng& rng, int bits) {
  TaskExample e;
  e.question = "parity ";
  int parity = 0;
  for (int i = 0; i < bits; ++i) {
    int bit = static_cast<int>(rng.below(2));
    parity ^= bit;
    e.question += static_cast<char>('0' + bit);
    e.chain += static_cast<char>('0' + parity);
  }
  e.answer = std::string(1, static_cast<char>('0' + parity));
  return e;
}

}  // namespace

std::unique_ptr<Task> make_parity() {
  return make_generator({"parity",
                         "1 if the number of ones in a string of bits is odd, else 0",
                         {1, 64, 20, "bits"},
                         make,
                         score_text});
}

}  // namespace wels
