// What generators share: a task is a table row (name, levels) and two functions, one that makes an
// example of a level from random numbers and one that scores a final answer. Each file of the
// folder that makes one or more of them says so in generators.h.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "tasks/task.h"

namespace wels {

struct GeneratorSpec {
  std::string name, about;
  Task::Levels levels;
  // Question, answer and chain of an example of a level.
  TaskExample (*make)(Rng& rng, int level);
  // For what final_answer() gives.
  double (*score)(const TaskExample& example, std::string_view final);
};
std::unique_ptr<Task> make_generator(GeneratorSpec spec);

// Score functions: the same number; the same text (normalised); the same words and digits, whatever
// stands between them.
double score_number(const TaskExample& example, std::string_view final);
double score_text(const TaskExample& example, std::string_view final);
double score_words(const TaskExample& example, std::string_view final);

// Uniform whole number from lowest to highest.
int64_t uniform_int(Rng& rng, int64_t lowest, int64_t highest);
// A number of exactly so many decimal digits (at most 18).
int64_t number_of_digits(Rng& rng, int digits);

template <class T>
void shuffle(std::vector<T>& items, Rng& rng) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.below(i)]);
}
template <class T>
const T& pick(const std::vector<T>& items, Rng& rng) {
  return items[rng.below(items.size())];
}

}  // namespace wels
