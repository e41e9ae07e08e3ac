// What this program runs on, for reports and for refusing work that cannot fit. Says nothing that
// names the machine or its user: reports are passed on.
#pragma once
#include <cstdint>
#include <string>

namespace wels {

struct Machine {
  std::string cpu;  // "AMD EPYC 9B14"
  std::string
      instruction_sets;  // those that matter here, of what the CPU has: "avx2 avx512f avx512_bf16"
  int cpus = 1;          // logical CPUs that this process may use (affinity and container quota)
  int64_t memory_total_bytes = 0;  // of the machine, or of the container's limit where that is less
  std::string system;              // "Linux 6.1.0"
  std::string compiler;            // "g++ 12.2.0, release"
  std::string version;             // "0.1.0 (git 1a2b3c4d)"
};
Machine machine();

// What can be taken now without swapping or being killed: the kernel's MemAvailable, or what the
// container's limit leaves.
int64_t memory_available_bytes();
int64_t peak_rss_bytes();  // most memory that this process ever held
int64_t rss_bytes();       // what it holds now
// Free space for an unprivileged writer on the file system of path, or of its nearest parent that
// exists; -1: unknown.
int64_t free_disk_bytes(const std::string& path);
std::string utc_date();  // "2026-01-31 23:59:58 UTC"
std::string utc_date(double unix_seconds);
double unix_seconds();  // wall clock

}  // namespace wels
