#include "tasks/generator.h"

#include <fmt/format.h>

#include <optional>

#include "base/check.h"
#include "tasks/answer.h"
#include "tasks/number.h"
#include "tasks/plain.h"

namespace wels {
namespace {

class Generator : public Task {
 public:
  explicit Generator(GeneratorSpec spec) : spec_(std::move(spec)) {}
  std::string name() const override { return spec_.name; }
  std::string about() const override { return spec_.about; }
  Levels levels() const override { return spec_.levels; }

  TaskExample example(uint64_t seed, int level) const override {
    CHECK(level >= spec_.levels.lowest);
    CHECK(level <= spec_.levels.highest);
    Rng rng(seed, hash_name(fmt::format("{}:{}", spec_.name, level)));
    TaskExample example = spec_.make(rng, level);
    example.metadata = fmt::format("{{\"level\":{}}}", level);
    return example;
  }

  double score(const TaskExample& example, std::string_view answer) const override {
    return spec_.score(example, final_answer(answer));
  }

 private:
  GeneratorSpec spec_;
};

std::vector<std::string> words_and_digits(std::string_view text) {
  std::vector<std::string> words;
  bool within = false;
  for (char c : normalised(text)) {
    bool part = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c & 0x80);
    if (part && !within) words.emplace_back();
    if (part) words.back() += c;
    within = part;
  }
  return words;
}

}  // namespace

std::unique_ptr<Task> make_generator(GeneratorSpec spec) {
  return std::make_unique<Generator>(std::move(spec));
}

double score_number(const TaskExample& example, std::string_view final) {
  std::optional<Number> given = parse_number(final), right = parse_number(example.answer);
  CHECK(right.has_value());
  return given && *given == *right ? 1 : 0;
}

double score_text(const TaskExample& example, std::string_view final) {
  return normalised(final) == normalised(example.answer) ? 1 : 0;
}

double score_words(const TaskExample& example, std::string_view final) {
  return words_and_digits(final) == words_and_digits(example.answer) ? 1 : 0;
}

int64_t uniform_int(Rng& rng, int64_t lowest, int64_t highest) {
  CHECK(lowest <= highest);
  return lowest + static_cast<int64_t>(rng.below(static_cast<uint64_t>(highest - lowest) + 1));
}

int64_t number_of_digits(Rng& rng, int digits) {
  CHECK(digits >= 1);
  CHECK(digits <= 18);
  int64_t lowest = 1;
  for (int i = 1; i < digits; ++i) lowest *= 10;
  return uniform_int(rng, digits == 1 ? 0 : lowest, lowest * 10 - 1);
}

}  // namespace wels
