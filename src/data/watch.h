// Watch: how long work over a corpus tells how far it is, and hears that it is to stop. Being
// stopped is an expected outcome: the work returns with `stopped` set and leaves nothing behind.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>

namespace wels {

struct DataProgress {
  std::string_view stage;      // "sampling", "checking", "counting", "encoding"
  double done = 0, total = 0;  // MB as they lie on disk; encoding: of text
  double mb_per_s = 0, eta_s = 0;
};

// Called at most ten times a second and at the end, from the caller's thread; false: stop.
using Watch = std::function<bool(const DataProgress&)>;

// One stage of the work.
class WatchedStage {
 public:
  // watch: may be empty, else must outlive this.
  WatchedStage(const Watch& watch, std::string_view stage) : watch_(watch), stage_(stage) {}
  // done of total bytes are done; false: stop.
  bool goes_on(int64_t done, int64_t total) {
    auto now = Clock::now();
    bool ends = done >= total && !ended_;
    if (!watch_ || (now - shown_ < std::chrono::milliseconds(100) && !ends)) return true;
    shown_ = now;
    ended_ |= ends;
    double mb = static_cast<double>(done) / 1e6, all = static_cast<double>(total) / 1e6;
    double rate = mb / std::max(1e-6, std::chrono::duration<double>(now - start_).count());
    return watch_({stage_, mb, all, rate, rate > 0 ? (all - mb) / rate : 0});
  }

 private:
  using Clock = std::chrono::steady_clock;
  const Watch& watch_;
  std::string_view stage_;
  Clock::time_point start_ = Clock::now(), shown_{};
  bool ended_ = false;
};

}  // namespace wels
