// Runs other programs that may crash, hang or flood: bounded in time and output, and gone, with all
// that they started, when the call returns or this process is killed.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace wels {

struct ProcessJob {
  std::vector<std::string> argv;  // [0] is looked up in PATH
  std::string_view input;         // its stdin
  // Contents that the program finds at the file descriptors kFirstFile, kFirstFile + 1, ...
  std::vector<std::string_view> files;
  double limit_s = 10;
  size_t most_output_bytes = 1 << 20;
};
inline constexpr int kFirstFile = 10;

struct ProcessResult {
  enum End { kExited, kKilled, kTimeLimit, kOutputLimit, kNotStarted } end = kNotStarted;
  int code = 0;        // exit code, or the signal that killed it
  std::string output;  // stdout
  std::string errors;  // the first 4 KiB of stderr; why it was not started
  bool good() const { return end == kExited && code == 0; }
  std::string reason() const;  // "exit code 3: no such module", "no end after 10 s"
};
// Blocks until the program is over; then, or after the time limit, all that it started is killed,
// in other sessions too. Never throws on account of the program, but Interrupted (base/signal.h)
// where a signal comes first; the program is killed then too. For several threads at once.
ProcessResult run_process(const ProcessJob& job);

}  // namespace wels
