#include "base/machine.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "base/version.h"

namespace wels {
namespace {

constexpr int64_t kNone = -1;

// The first line of a small system file; empty if there is none.
std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// The value behind "key" in a file of "key : value" lines; empty if there is none.
std::string field(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    size_t colon = line.find(':');
    if (colon == std::string::npos || line.compare(0, key.size(), key) != 0) continue;
    if (line.find_first_not_of(" \t", key.size()) != colon) continue;
    size_t from = line.find_first_not_of(" \t", colon + 1);
    return from == std::string::npos ? "" : line.substr(from);
  }
  return "";
}

int64_t parse_int(const std::string& text) {
  int64_t v = 0;
  size_t i = 0;
  for (; i < text.size() && std::isdigit(static_cast<unsigned char>(text[i])); ++i) {
    if (v > std::numeric_limits<int64_t>::max() / 20) return kNone;  // "no limit" in cgroup v1
    v = v * 10 + (text[i] - '0');
  }
  return i == 0 ? kNone : v;
}

int64_t meminfo_bytes(const std::string& key) {
  int64_t kib = parse_int(field("/proc/meminfo", key));
  return kib < 0 ? kNone : kib * 1024;
}

// The control groups whose limits hold for this process: its own and every one above it, v2 and v1.
std::vector<std::string> memory_groups() {
  std::vector<std::string> out;
  std::ifstream in("/proc/self/cgroup");  // "0::/path" (v2) or "4:memory:/path" (v1)
  for (std::string line; std::getline(in, line);) {
    size_t a = line.find(':'), b = line.find(':', a + 1);
    if (a == std::string::npos || b == std::string::npos) continue;
    std::string controllers = "," + line.substr(a + 1, b - a - 1) + ",";
    bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",memory,") == std::string::npos) continue;
    std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (std::string path = line.substr(b + 1);;) {
      out.push_back(root + (path == "/" ? "" : path));
      if (path == "/" || path.empty()) break;
      path = path.substr(0, path.rfind('/'));
      if (path.empty()) path = "/";
    }
  }
  return out;
}

struct GroupMemory {
  int64_t limit = kNone, available = kNone;
};

// The tightest limit and the least that any group leaves. Inactive page cache counts as free: the
// kernel drops it first.
GroupMemory group_memory() {
  GroupMemory out;
  for (const std::string& dir : memory_groups()) {
    int64_t limit = parse_int(first_line(dir + "/memory.max"));
    int64_t used = parse_int(first_line(dir + "/memory.current"));
    if (limit < 0) {
      limit = parse_int(first_line(dir + "/memory.limit_in_bytes"));
      used = parse_int(first_line(dir + "/memory.usage_in_bytes"));
    }
    if (limit < 0) continue;
    int64_t cache = 0;
    std::ifstream stat(dir + "/memory.stat");
    for (std::string key, value; stat >> key >> value;) {
      if (key == "inactive_file" || key == "total_inactive_file")
        cache = std::max(cache, parse_int(value));
    }
    int64_t left = std::max<int64_t>(limit - std::max<int64_t>(used - cache, 0), 0);
    out.limit = out.limit < 0 ? limit : std::min(out.limit, limit);
    out.available = out.available < 0 ? left : std::min(out.available, left);
  }
  return out;
}

int usable_cpus() {
  cpu_set_t set;
  int n = ::sched_getaffinity(0, sizeof set, &set) == 0
              ? CPU_COUNT(&set)
              : static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  std::istringstream quota(
      first_line("/sys/fs/cgroup/cpu.max"));  // "200000 100000", or "max 100000"
  double allowed = 0, period = 0;
  if (quota >> allowed >> period && period > 0)
    n = std::min(n, static_cast<int>(std::ceil(allowed / period)));
  return std::max(n, 1);
}

std::string instruction_sets() {
  std::istringstream have(field("/proc/cpuinfo", "flags"));
  const std::vector<std::string> wanted = {"avx2",     "fma",         "f16c",        "avx512f",
                                           "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
                                           "amx_bf16", "amx_int8"};
  std::vector<std::string> all;
  for (std::string flag; have >> flag;) all.push_back(flag);
  std::string out;
  for (const std::string& w : wanted) {
    if (std::find(all.begin(), all.end(), w) != all.end()) out += (out.empty() ? "" : " ") + w;
  }
  return out;
}

std::string compiler() {
#ifdef NDEBUG
  const char* kind = "release";
#else
  const char* kind = "debug";
#endif
#if defined(__clang__)
  return fmt::format("clang++ {}.{}.{}, {}", __clang_major__, __clang_minor__, __clang_patchlevel__,
                     kind);
#else
  return fmt::format("g++ {}.{}.{}, {}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__, kind);
#endif
}

}  // namespace

Machine machine() {
  Machine m;
  m.cpu = field("/proc/cpuinfo", "model name");
  utsname u{};
  ::uname(&u);
  if (m.cpu.empty()) m.cpu = u.machine;
  m.instruction_sets = instruction_sets();
  m.cpus = usable_cpus();
  m.memory_total_bytes = meminfo_bytes("MemTotal");
  int64_t limit = group_memory().limit;
  if (limit > 0) m.memory_total_bytes = std::min(m.memory_total_bytes, limit);
  std::string release =
      u.release;  // "6.1.0-18-amd64": what follows the numbers is the distributor's
  m.system =
      fmt::format("{} {}", u.sysname, release.substr(0, release.find_first_not_of("0123456789.")));
  m.compiler = compiler();
  m.version = fmt::format("{} (git {})", version(), git_version());
  return m;
}

int64_t memory_available_bytes() {
  int64_t left = meminfo_bytes("MemAvailable"), group = group_memory().available;
  if (left < 0) left = static_cast<int64_t>(::sysconf(_SC_AVPHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  return group < 0 ? left : std::min(left, group);
}

int64_t peak_rss_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

int64_t rss_bytes() {
  std::istringstream in(first_line("/proc/self/statm"));
  int64_t size = 0, resident = 0;
  in >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

int64_t free_disk_bytes(const std::string& path) {
  std::error_code ec;
  std::filesystem::path p = std::filesystem::absolute(path.empty() ? "." : path, ec);
  while (!std::filesystem::exists(p, ec) && p.has_relative_path()) p = p.parent_path();
  struct statvfs s {};
  if (::statvfs(p.c_str(), &s) != 0) return kNone;
  return static_cast<int64_t>(s.f_bavail) * static_cast<int64_t>(s.f_frsize);
}

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string utc_date(double seconds) {
  auto t = static_cast<std::time_t>(std::floor(seconds));
  std::tm tm{};
  ::gmtime_r(&t, &tm);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
  return text;
}

std::string utc_date() { return utc_date(unix_seconds()); }

}  // namespace wels
