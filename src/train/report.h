// The report of a run: one HTML file with everything in it, to be opened from disk, mailed or put
// on a web server. It loads nothing from anywhere. Curves, load heat maps and samples come from
// metrics.jsonl, the header from run.json:
//
//   {"name":"nano-seed1","status":"running","started":1764000000.0,"updated":1764000180.0,
//    "total_steps":400,
//    "sections":[{"title":"Recipe","rows":[["preset","nano"],["--depth","4"]]}, ...]}
//
// Given several run folders the curves are drawn over each other and the header shows where the
// recipes differ.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/machine.h"

namespace wels {

struct InfoSection {
  std::string title;
  std::vector<std::pair<std::string, std::string>> rows;  // name, value; shown as they are
};

// What is to be known of a run besides its metrics. The trainer fills sections such as "Recipe"
// (arguments, seed), "Model" (parameters total and active, FLOPs per token), "Data" and "Machine".
struct RunInfo {
  std::string name;                 // short; the run's label in a comparison
  std::string status = "running";   // "running", "finished", "stopped", "failed: why"
  double started = 0, updated = 0;  // seconds since 1970
  int64_t total_steps = 0;          // 0: not known
  std::vector<InfoSection> sections;
};

// <folder>/run.json, written atomically. read: a folder without one gives its own name and nothing
// else; a file that isn't what it should be throws Error.
void write_run_info(const std::string& folder, const RunInfo& info);
RunInfo read_run_info(const std::string& folder);

// The section "Machine": processor, threads, memory, compiler, version, and the measured peak (0:
// not measured).
InfoSection machine_section(const Machine& machine, int threads, double peak_gflops);

// Writes the report of the run folders (each with metrics.jsonl) to the file `out`, atomically. A
// page of a run whose status is "running" reloads itself every half minute; is_running, where it is
// given, says whether that is still so (a run that was killed has had no time to say it). Curves of
// more than about 1500 points are averaged, with their range kept. Throws Error if there is no
// folder, one has no metrics.jsonl, or out can't be written.
// Returns the same runs as a Markdown table, a line each: steps, tokens, last and best validation,
// MaxVio (the worst block, mean of the last 50 steps) and the median rate.
std::string write_report(const std::string& out, const std::vector<std::string>& folders,
                         const std::function<bool(const std::string& folder)>& is_running = {});

}  // namespace wels
