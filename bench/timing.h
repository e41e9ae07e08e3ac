// How the benchmarks measure time.
#pragma once
#include <algorithm>
#include <chrono>
#include <functional>

namespace wels {

// Seconds of one call: the best of at least 5 and of a tenth of a second's worth, since the machine
// may be shared and nothing makes a call faster than it is.
inline double seconds_of(const std::function<void()>& fn) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9, spent = 0;
  for (int i = 0; i < 200 && (i < 5 || spent < 0.1); ++i) {
    auto start = Clock::now();
    fn();
    double s = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, s);
    spent += s;
  }
  return best;
}

}  // namespace wels
