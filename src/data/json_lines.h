// The lines of JSONL files, plain or as .gz or .zst, one after another, in bounded memory.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

// Calls line(text, where) for each line that is not blank; where: "file:7". Lines are well-formed
// UTF-8 (ill-formed bytes are replaced as in corpora). false: stop. Throws Error for missing and
// damaged files, lines of more than 64 MiB, and a file whose first line begins a JSON array.
void read_json_lines(
    const std::vector<std::string>& files,
    const std::function<bool(std::string_view text, const std::string& where)>& line);

// The JSONL files of the given files and folders (folders: .jsonl and .ndjson in them, sorted).
// Throws Error for what is missing or unreadable, and where nothing is found.
std::vector<std::string> list_json_lines(const std::vector<std::string>& paths);

}  // namespace wels
