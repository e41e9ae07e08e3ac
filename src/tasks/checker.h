// Checkers: what makes an answer to a user's question right. Chosen by name, in the spec
// ("file.jsonl@number") or line by line ("checker": "number").
//
//   name     the answer is right if                                           a line's fields
//   exact    it is the same text (case, white space, quotes, full stop aside)  answer
//   number   its number is the same: \boxed{}, "####", <answer>, else the last  answer
//   choice   it names the choice last: its letter, or its text; several: none   answer, choices
//   json     it is valid JSON, and equal to the answer where there is one      answer (optional)
//   code     its code passes the tests in a sandbox (tasks/sandbox.h)          tests, language
//   command=COMMAND  COMMAND, run by sh, prints 1: it gets {"question", "answer", "completion", and
//            the line's other fields} as JSON on stdin and prints a score from 0 to 1 (a number
//            alone). Only in the spec: a file of questions can't name programs to run.
//            "timeout=5 command=COMMAND" gives it 5 seconds instead of 20.
//
// "tests" is code that stops with an error where something is wrong (assert), run behind the
// answer's code (C++: within main), or a list of {"input", "output"}: what the program reads and
// has to print. "language" is python (where it is missing) or c++. All tests must pass.
#pragma once
#include <atomic>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tasks/task.h"

namespace wels {

class Checker {
 public:
  virtual ~Checker() = default;
  virtual std::string name() const = 0;
  // Takes from a line of the file what the checker needs, into the example's answer and its
  // metadata. Throws Error(where, ...) where something is missing or of the wrong kind. Not for
  // several threads at once.
  virtual void read(const nlohmann::json& line, const std::string& where, TaskExample& example,
                    nlohmann::json& metadata) = 0;
  // As Task::score. Throws Interrupted where a signal comes while a program runs.
  virtual double score(const TaskExample& example, std::string_view answer) const = 0;

  // Answers scored 0 because the checker failed: it crashed, hung or printed no score.
  int64_t failures() const { return failures_.load(std::memory_order_relaxed); }

 protected:
  void count_failure(const std::string& reason) const;  // and warns, the first time

 private:
  mutable std::atomic<int64_t> failures_{0};
};

// Throws Error(where, ...) listing the names where there is no such checker. command: whether
// "command=..." is allowed here.
std::unique_ptr<Checker> make_checker(const std::string& name, const std::string& where,
                                      bool command);
std::unique_ptr<Checker> make_code_checker();
inline constexpr double kCommandLimit = 20;  // s
std::unique_ptr<Checker> make_command_checker(const std::string& command,
                                              double limit_s = kCommandLimit);

// The code within an answer: the last fenced block, else all of it.
std::string_view code_of(std::string_view answer);
// The letter ('A', ...) that the answer to a question with these choices picks; '\0': none.
char chosen_letter(std::string_view answer, const std::vector<std::string>& choices);

}  // namespace wels
