// Knights, who only say what is true, and knaves, who only say what is false. The chain goes
// through the assignments in order, statement by statement up to the first that does not fit.
#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

// What a person says about one or two people.
struct Statement {
  enum Kind { kKnight, kKnave, kSame, kDiffer, kCount } kind;
  int first, second;
};

// Bit p of an assignment: person p is a knave, so that the order begins with all knights.
bool is_knight(uint32_t assignment, int person) { return (assignment >> person & 1) == 0; }

bool is_true(const Statement& s, uint32_t assignment) {
  bool first = is_knight(assignment, s.first);
  switch (s.kind) {
    case Statement::kKnight:
      return first;
    case Statement::kKnave:
      return !first;
    case Statement::kSame:
      return first == is_knight(assignment, s.second);
    default:
      return first != is_knight(assignment, s.second);
  }
}
bool fits(const std::vector<Statement>& said, int speaker, uint32_t assignment) {
  return is_true(said[static_cast<size_t>(speaker)], assignment) == is_knight(assignment, speaker);
}

// letters[p] stands for person p.
std::string text_of(const Statement& s, const std::string& letters) {
  char first = letters[static_cast<size_t>(s.first)],
       second = letters[static_cast<size_t>(s.second)];
  switch (s.kind) {
    case Statement::kKnight:
      return fmt::format("{} is a knight", first);
    case Statement::kKnave:
      return fmt::format("{} is a knave", first);
    case Statement::kSame:
      return fmt::format("{} and {} are alike", first, second);
    default:
      return fmt::format("{} and {} differ", first, second);
  }
}

// As many different capital letters, in the order of the alphabet.
std::string random_letters(Rng& rng, int people) {
  std::vector<char> all;
  for (char c = 'A'; c <= 'Z'; ++c) all.push_back(c);
  shuffle(all, rng);
  std::string chosen(all.begin(), all.begin() + people);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

// Nobody speaks of himself alone; "A and B differ" may be said by A.
Statement random_statement(Rng& rng, int speaker, int people) {
  Statement s{};
  do {
    s.kind = static_cast<Statement::Kind>(rng.below(Statement::kCount));
    s.first = static_cast<int>(rng.below(static_cast<uint64_t>(people)));
    s.second = static_cast<int>(rng.below(static_cast<uint64_t>(people)));
    if (s.kind >= Statement::kSame && s.first > s.second) std::swap(s.first, s.second);
  } while (s.kind >= Statement::kSame ? s.first == s.second : s.first == speaker);
  return s;
}

int count_fitting(const std::vector<Statement>& said) {
  int people = static_cast<int>(said.size()), n = 0;
  for (uint32_t a = 0; a < 1u << people; ++a) {
    int fit = 0;
    while (fit < people && fits(said, fit, a)) ++fit;
    n += fit == people;
  }
  return n;
}

TaskExample make(Rng& rng, int people) {
  std::vector<Statement> said;
  do {
    said.clear();
    for (int p = 0; p < people; ++p) said.push_back(random_statement(rng, p, people));
  } while (count_fitting(said) != 1);

  std::string letters = random_letters(rng, people);
  auto letter = [&](int person) { return letters[static_cast<size_t>(person)]; };
  TaskExample e;
  for (int p = 0; p < people; ++p) {
    e.question += fmt::format("{}{} says {}.", p ? " " : "", letter(p),
                              text_of(said[static_cast<size_t>(p)], letters));
  }
  for (uint32_t a = 0; a < 1u << people; ++a) {
    if (a) e.chain += ' ';
    for (int p = 0; p < people; ++p) e.chain += is_knight(a, p) ? 'k' : 'n';
    e.chain += ':';
    int p = 0;
    for (; p < people && fits(said, p, a); ++p) e.chain += fmt::format(" {} ok", letter(p));
    if (p < people) {
      e.chain += fmt::format(" {} no", letter(p));
      continue;
    }
    e.chain += " yes";
    for (int q = 0; q < people; ++q) {
      e.answer +=
          fmt::format("{}{} {}", q ? ", " : "", letter(q), is_knight(a, q) ? "knight" : "knave");
    }
    return e;
  }
  CHECK(!"an assignment fits");
  return e;
}

}  // namespace

std::unique_ptr<Task> make_knights() {
  return make_generator({"knights",
                         "who is a knight (tells the truth) and who is a knave (lies)",
                         {2, 6, 3, "people"},
                         make,
                         score_words});
}

}  // namespace wels
