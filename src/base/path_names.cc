#include "base/path_names.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

namespace wels {
namespace {

// The parts of an absolute path, the last first.
std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> out;
  for (const auto& part : std::filesystem::absolute(path).lexically_normal()) {
    std::string name = part.string();
    if (!name.empty() && name != "/") out.push_back(name);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

std::vector<std::string> distinct_tails(const std::vector<std::string>& paths) {
  std::vector<std::vector<std::string>> parts;
  for (const std::string& p : paths) parts.push_back(parts_of(p));
  std::vector<std::string> tails(paths.size());
  std::set<size_t> open;  // whose tail is shared yet
  for (size_t i = 0; i < paths.size(); ++i) open.insert(i);
  for (size_t n = 0; !open.empty(); ++n) {
    std::map<std::string, std::set<std::vector<std::string>>> who;
    bool longer = false;
    for (size_t i : open) {
      if (n < parts[i].size()) {
        tails[i] = tails[i].empty() ? parts[i][n] : parts[i][n] + "/" + tails[i];
        longer = true;
      }
      who[tails[i]].insert(parts[i]);
    }
    std::erase_if(open, [&](size_t i) { return who[tails[i]].size() == 1 || !longer; });
  }
  return tails;
}

}  // namespace wels
