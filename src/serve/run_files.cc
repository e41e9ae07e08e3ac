#include "serve/run_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/machine.h"
#include "base/path_names.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr size_t kChunk = 256 << 10, kLongestLine = 8 << 20, kTail = 8 << 20;
constexpr int kDepth = 3;  // of runs below the folder that was named
constexpr size_t kMostRuns = 1000, kSamples = 200;
constexpr double kQuiet = 300;  // seconds without a line, after which a run without a lock is over

int64_t size_of(const std::string& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 && S_ISREG(s.st_mode) ? s.st_size : 0;
}

// Up to n bytes from `offset`; fewer at the end.
std::string read_at(const std::string& path, int64_t offset, size_t n) {
  std::string out(n, '\0');
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  size_t done = 0;
  while (fd >= 0 && done < n) {
    ssize_t got = ::pread(fd, out.data() + done, n - done, offset + static_cast<int64_t>(done));
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  if (fd >= 0) ::close(fd);
  out.resize(done);
  return out;
}

ordered_json parse(std::string_view text) {
  ordered_json j = ordered_json::parse(text.begin(), text.end(), nullptr, false);
  return j.is_object() ? j : ordered_json::object();
}

// A small file as an object; {} where it is none.
ordered_json parse_file(const std::string& path) { return parse(read_at(path, 0, 1 << 20)); }

std::string dump(const ordered_json& j) {
  return j.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

bool is_run(const std::string& folder) {
  std::error_code ec;
  return fs::is_regular_file(folder + "/metrics.jsonl", ec) ||
         fs::is_regular_file(folder + "/run.json", ec);
}

double seconds_since_change(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return 1e18;
  return unix_seconds() - static_cast<double>(s.st_mtim.tv_sec);
}

// "major:minor" of a file's file system. What stat says of the device is another number on some
// (btrfs, overlayfs); the table of mounts has the one that the table of locks has.
std::string device_of(const struct statx& s) {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    uint64_t id = 0, parent = 0;
    std::string device;
    if (words >> id >> parent >> device && id == s.stx_mnt_id) return device;
  }
  return fmt::format("{}:{}", s.stx_dev_major, s.stx_dev_minor);
}

// The kernel's table says who holds a lock, without trying to take it.
bool is_locked(const std::string& path) {
  struct statx s {};
  if (::statx(AT_FDCWD, path.c_str(), 0, STATX_INO | STATX_MNT_ID, &s) != 0) return false;
  std::ifstream locks("/proc/locks");
  return lists_lock(locks, device_of(s), s.stx_ino);
}

// The text at `key`, or `other` where there is none.
std::string text_of(const ordered_json& j, const char* key, const char* other = "") {
  auto at = j.find(key);
  return at != j.end() && at->is_string() ? at->get<std::string>() : other;
}

// Entries of a folder; none where it can't be read.
std::vector<fs::directory_entry> entries_of(const std::string& folder) {
  std::vector<fs::directory_entry> out;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    out.push_back(*it);
  return out;
}

ordered_json section(const ordered_json& info, const char* title) {
  ordered_json out = ordered_json::object();
  if (!info.contains("sections") || !info["sections"].is_array()) return out;
  for (const ordered_json& s : info["sections"]) {
    if (!s.is_object() || text_of(s, "title") != title || !s.contains("rows")) continue;
    for (const ordered_json& row : s["rows"]) {
      if (row.is_array() && row.size() == 2 && row[0].is_string()) out[row[0]] = row[1];
    }
  }
  return out;
}

int64_t planned_steps(const std::string& folder, const ordered_json& info) {
  std::string newest;
  for (const auto& entry : entries_of(folder + "/checkpoints")) {
    std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && name > newest) newest = name;
  }
  if (!newest.empty()) {
    ordered_json j = parse_file(folder + "/checkpoints/" + newest + "/trainer.json");
    if (j.contains("settings") && j["settings"].is_object() &&
        j["settings"].value("steps", ordered_json()).is_number_integer())
      return j["settings"]["steps"];
  }
  ordered_json steps = info.value("total_steps", ordered_json(0));
  return steps.is_number_integer() ? steps.get<int64_t>() : 0;
}

}  // namespace

bool lists_lock(std::istream& table, const std::string& device, uint64_t inode) {
  // "1: FLOCK  ADVISORY  WRITE 4711 08:01:131090 0 EOF", the device in hexadecimal.
  unsigned major = 0, minor = 0;
  if (std::sscanf(device.c_str(), "%u:%u", &major, &minor) != 2) return false;
  std::string file = fmt::format("{:02x}:{:02x}:{}", major, minor, inode);
  for (std::string line; std::getline(table, line);) {
    std::istringstream words(line);
    bool flock = false, same = false;
    for (std::string word; words >> word;) {
      flock = flock || word == "FLOCK";
      same = same || word == file;
    }
    if (flock && same) return true;
  }
  return false;
}

bool LineReader::was_cut() {
  if (size_of(path_) >= offset_) return false;
  offset_ = line_ = 0;
  return true;
}

bool LineReader::read(size_t bytes, const std::function<void(int64_t, std::string_view)>& fn) {
  std::string text = read_at(path_, offset_, bytes);
  size_t whole = text.rfind('\n');
  if (whole == std::string::npos && text.size() == bytes && bytes < kLongestLine)
    return read(2 * bytes, fn);
  if (whole == std::string::npos) return false;
  for (size_t at = 0; at <= whole;) {
    size_t end = text.find('\n', at);
    fn(++line_, std::string_view(text).substr(at, end - at));
    at = end + 1;
  }
  offset_ += static_cast<int64_t>(whole) + 1;
  return true;
}

void LineReader::skip(int64_t after) {
  // A line may be longer than a piece: pieces follow each other wherever lines end.
  for (int64_t from = offset_; line_ < after;) {
    std::string text = read_at(path_, from, kChunk);
    for (size_t at = 0, end; line_ < after && (end = text.find('\n', at)) != std::string::npos;) {
      at = end + 1;
      offset_ = from + static_cast<int64_t>(at);
      ++line_;
    }
    if (text.size() < kChunk) return;
    from += static_cast<int64_t>(text.size());
  }
}

std::string last_line_with(const std::string& path, std::string_view part) {
  int64_t size = size_of(path);
  for (size_t tail = 64 << 10;; tail *= 4) {
    int64_t from = std::max<int64_t>(size - static_cast<int64_t>(tail), 0);
    std::string text = read_at(path, from, tail);
    size_t end = text.rfind('\n');
    while (end != std::string::npos && end > 0) {
      size_t begin = text.rfind('\n', end - 1);
      if (begin == std::string::npos && from > 0) break;
      size_t first = begin == std::string::npos ? 0 : begin + 1;
      std::string_view line = std::string_view(text).substr(first, end - first);
      if (line.find(part) != std::string_view::npos && !parse(line).empty())
        return std::string(line);
      end = begin;
    }
    if (from == 0 || tail >= kTail) return {};
  }
}

RunTable::RunTable(const std::vector<std::string>& folders, bool required) {
  for (const std::string& f : folders) {
    std::error_code ec;
    std::string root = fs::weakly_canonical(f, ec).string();
    if (!fs::is_directory(root, ec))
      throw Error(f, "is no folder", "name a run folder, or one that holds some");
    roots_.push_back(root);
    scan();
    bool any = std::any_of(runs_.begin(), runs_.end(), [&](const Run& r) {
      return r.folder == root || r.folder.starts_with(root + "/");
    });
    if (required && !any)
      throw Error(f, "is no run folder and holds none",
                  "name one that wels pretrain, sft, rl, ... has written");
  }
}

void RunTable::add(const std::string& root, const std::string& folder, int depth) {
  bool known =
      std::any_of(runs_.begin(), runs_.end(), [&](const Run& r) { return r.folder == folder; });
  if (!known && is_run(folder) && runs_.size() < kMostRuns) {
    std::string path = fs::path(root).filename().string() + folder.substr(root.size()), id;
    for (char c : path)
      id += std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' ? c : '-';
    if (id.find_first_not_of('.') == std::string::npos) id = "run";
    std::string unique = id;
    for (int n = 2; this->folder(unique); ++n) unique = id + "-" + std::to_string(n);
    runs_.push_back({unique, folder, ""});
  }
  if (depth == 0) return;
  std::vector<std::string> below;
  for (const auto& entry : entries_of(folder)) {
    std::string name = entry.path().filename().string();
    if (name.starts_with('.') || name == "checkpoints" || name == "answers") continue;
    std::error_code ignored;
    if (entry.is_directory(ignored) && !entry.is_symlink(ignored))
      below.push_back(entry.path().string());
    if (below.size() >= kMostRuns) break;
  }
  std::sort(below.begin(), below.end());
  for (const std::string& b : below) add(root, b, depth - 1);
}

const std::vector<RunTable::Run>& RunTable::scan() {
  std::erase_if(runs_, [](const Run& r) { return !is_run(r.folder); });
  for (const std::string& root : roots_) add(root, root, kDepth);
  std::vector<std::string> folders;
  for (const Run& r : runs_) folders.push_back(r.folder);
  std::vector<std::string> names = distinct_tails(folders);
  for (size_t i = 0; i < runs_.size(); ++i) runs_[i].name = std::move(names[i]);
  return runs_;
}

std::optional<std::string> RunTable::folder(const std::string& id) const {
  for (const Run& r : runs_) {
    if (r.id == id) return r.folder;
  }
  return std::nullopt;
}

bool is_running(const std::string& folder) {
  std::error_code ec;
  if (fs::exists(folder + "/.lock", ec)) return is_locked(folder + "/.lock");
  // A part of a longer run, which holds the lock further up.
  fs::path up = fs::path(folder).parent_path();
  for (int i = 0; i < kDepth && up.has_relative_path(); ++i, up = up.parent_path()) {
    if (is_locked((up / ".lock").string()))
      return seconds_since_change(folder + "/metrics.jsonl") < kQuiet;
  }
  return false;
}

std::string run_json(const RunTable::Run& run, bool ending) {
  ordered_json info = parse_file(run.folder + "/run.json");
  ordered_json recipe = section(info, "Recipe"), model = section(info, "Model");
  ordered_json last = parse(last_line_with(run.folder + "/metrics.jsonl", "\"step\":"));
  std::string status = text_of(info, "status");
  bool running = is_running(run.folder) && !(ending && status != "running");
  if (status == "running" && !running) status = "stopped";
  ordered_json out{{"id", run.id},
                   {"name", run.name},
                   {"folder_name", fs::path(run.folder).filename().string()},
                   {"stage", text_of(recipe, "stage", "pretraining")},
                   {"preset", text_of(recipe, "shape")},
                   {"model", model},
                   {"recipe", recipe},
                   {"step", last.value("step", ordered_json(0))},
                   {"steps", planned_steps(run.folder, info)},
                   {"tokens", last.value("tokens", ordered_json(0))},
                   {"started", info.value("started", ordered_json(0))},
                   {"updated", info.value("updated", ordered_json(0))},
                   {"running", running},
                   {"status", running ? "running" : status}};
  std::string seed = text_of(recipe, "seed");
  bool number = !seed.empty() && seed.size() < 16 &&
                seed.find_first_not_of("0123456789") == std::string::npos;
  if (number) out["seed"] = std::stoll(seed);
  return dump(out);
}

std::string run_samples_json(const std::string& folder) {
  std::deque<ordered_json> found;
  auto keep = [&](ordered_json j) {
    found.push_back(std::move(j));
    if (found.size() > 4 * kSamples) found.pop_front();
  };
  LineReader texts(folder + "/metrics.jsonl"), rollouts(folder + "/samples.jsonl");
  auto text = [&](int64_t, std::string_view line) {
    if (line.find("\"sample\":") == std::string_view::npos) return;
    ordered_json j = parse(line);
    if (j.contains("step") && j["step"].is_number() && j.contains("sample"))
      keep({{"step", j["step"]}, {"prompt", ""}, {"text", j["sample"]}});
  };
  while (texts.read(kChunk, text)) {
  }
  auto rollout = [&](int64_t, std::string_view line) {
    ordered_json j = parse(line);
    if (j.contains("step") && j["step"].is_number()) keep(std::move(j));
  };
  while (rollouts.read(kChunk, rollout)) {
  }
  std::stable_sort(found.begin(), found.end(), [](const ordered_json& a, const ordered_json& b) {
    return a["step"].get<double>() < b["step"].get<double>();
  });
  ordered_json out = ordered_json::array();
  size_t first = found.size() > kSamples ? found.size() - kSamples : 0;
  for (size_t i = first; i < found.size(); ++i) out.push_back(std::move(found[i]));
  return dump(out);
}

std::string run_experts_json(const std::string& folder) {
  ordered_json j = parse(last_line_with(folder + "/metrics.jsonl", "\"load\":"));
  ordered_json load = j.value("load", ordered_json());
  if (!load.is_array() || load.empty() || !load[0].is_array()) return "null";
  ordered_json layers = j.value("layers", ordered_json());
  if (!layers.is_array() || layers.size() != load.size()) {
    layers = ordered_json::array();
    for (size_t i = 0; i < load.size(); ++i) layers.push_back(i);
  }
  return dump({{"step", j.value("step", ordered_json(0))},
               {"layers", layers},
               {"experts", load[0].size()},
               {"load", load},
               {"bias", j.value("bias", ordered_json())}});
}

}  // namespace wels
