// The generators, one function per task; all_tasks() lists them. Examples of each: docs/tasks.md.
#pragma once
#include <memory>

#include "tasks/task.h"

namespace wels {

std::unique_ptr<Task> make_parity();
std::unique_ptr<Task> make_state();
std::unique_ptr<Task> make_addition();
std::unique_ptr<Task> make_multiplication();
std::unique_ptr<Task> make_sums();
std::unique_ptr<Task> make_expressions();
std::unique_ptr<Task> make_modular();
std::unique_ptr<Task> make_gcd();
std::unique_ptr<Task> make_base();
std::unique_ptr<Task> make_sorting();
std::unique_ptr<Task> make_path();
std::unique_ptr<Task> make_maze();
std::unique_ptr<Task> make_countdown();
std::unique_ptr<Task> make_24();
std::unique_ptr<Task> make_knights();
std::unique_ptr<Task> make_sudoku();
std::unique_ptr<Task> make_words_en();
std::unique_ptr<Task> make_words_zh();

}  // namespace wels
