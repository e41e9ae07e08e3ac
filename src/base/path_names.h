// Short names for folders that are shown together.
#pragma once
#include <string>
#include <vector>

namespace wels {

// For each path the fewest of its last parts that no other of the paths ends with: out/a/run and
// out/b/run are "a/run" and "b/run", out/c/best is "best". A path that is there twice is one path.
std::vector<std::string> distinct_tails(const std::vector<std::string>& paths);

}  // namespace wels
