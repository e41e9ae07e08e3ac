// The generators, one function per task; all_tasks() lists them. Examples of each: docs/tasks.md.
#pragma once
#include <memory>

#include "tasks/task.h"

namespace wels {

std::unique_ptr<Task> make_parity();
std::unique_ptr<Task> make_addition();

}  // namespace wels
