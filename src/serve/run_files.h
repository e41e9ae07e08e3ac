// Run folders as the training page reads them: their files alone, so nothing here can be in the way
// of a training that writes them. Files are read, never mapped: a run that is resumed cuts them.
#pragma once
#include <cstdint>
#include <functional>
#include <istream>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace wels {

// Whole lines of a file that grows.
class LineReader {
 public:
  explicit LineReader(std::string path) : path_(std::move(path)) {}
  // Skips to behind line `after` (lines count from 1). A shorter file: to its end.
  void skip(int64_t after);
  // fn(number, line) for some lines more, about `bytes` of them; false: there are none now.
  bool read(size_t bytes, const std::function<void(int64_t number, std::string_view line)>& fn);
  // Whether the file became shorter than what was read; the reader is then at its beginning.
  bool was_cut();

 private:
  std::string path_;
  int64_t offset_ = 0, line_ = 0;
};

// The last line with `part` that is whole JSON, among the file's last megabytes; empty: none.
std::string last_line_with(const std::string& path, std::string_view part);

// The run folders at or below some folders. A run is known by its id, never by a path.
class RunTable {
 public:
  // Throws Error where a folder does not exist. required: or holds no run.
  RunTable(const std::vector<std::string>& folders, bool required);

  struct Run {
    std::string id, folder;
    std::string name;  // the end of the folder's path by which it differs from the others
  };
  const std::vector<Run>& scan();  // those that are there now; ids stay
  std::optional<std::string> folder(const std::string& id) const;

 private:
  void add(const std::string& root, const std::string& folder, int depth);
  std::vector<std::string> roots_;
  std::vector<Run> runs_;
};

// Whether a table as /proc/locks has a flock of a file; device: "major:minor" in decimal.
bool lists_lock(std::istream& table, const std::string& device, uint64_t inode);
// Whether a process trains there now.
bool is_running(const std::string& folder);

// JSON, as docs/api.md describes it. ending: this process ends, and what it has trained is as it
// says, though it holds the folder yet.
std::string run_json(const RunTable::Run& run, bool ending);
std::string run_samples_json(const std::string& folder);
std::string run_experts_json(const std::string& folder);  // "null" for a dense model

}  // namespace wels
