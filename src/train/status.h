// What a run shows on the terminal while it learns: its status line, and the texts that the model
// writes now.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace wels {

struct RunStatus {
  int64_t step = 0, steps = 0;
  double loss = 0;
  double tokens_per_s = 0;
  double gflops = 0, fraction_of_peak = 0;  // 0: not known, left out
  double left_s = 0;                        // not finite: not known yet
  double max_violation = -1;                // < 0: the model has no experts
  std::string more = {};                    // the stage's own words
};

// One line. What everybody waits for comes first, so that a terminal of 80 columns, which cuts the
// line there, shows it all: step, loss, rate, share of the peak, time left, balance.
std::string status_line(const RunStatus& s);

// The beginning of a text that the model wrote, a few indented lines below one that says when.
// Control characters, which could move the cursor, become spaces. dimmed: on a terminal.
std::string sample_lines(int64_t step, std::string_view text, bool dimmed);

}  // namespace wels
