// Tasks from a file of the user's: JSONL, one object per line, and a checker (tasks/checker.h).
#pragma once
#include <memory>
#include <string>

#include "tasks/task.h"

namespace wels {

// checker: "exact", "number", ..., "command=..."; empty: what each line says in "checker", else
// what suits its answer. Reads the whole file. Throws Error("file:line", ...) on a line that is no
// JSON object, lacks fields or names an unknown checker, and where the file holds no example.
std::unique_ptr<Task> make_file_task(const std::string& path, const std::string& checker);

}  // namespace wels
