// Progress of long work for the one who waits: what is done, how fast, how long it will take. On a
// terminal one line is rewritten in place, elsewhere (a log file, CI) plain lines come at
// intervals.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace wels {

std::string human_count(double n);      // 7, 950, 12.3k, 4.56M, 1.20G, 14.8T; three digits
std::string human_bytes(double bytes);  // 512 B, 1.50 KiB, 63.4 GiB
std::string human_rate(double per_second, std::string_view unit);  // "12.3k tok/s"
std::string human_duration(
    double seconds);  // 0.42s, 7.5s, 42s, 3m05s, 1h02m, 2d03h; "?" if not finite

// Seconds since an arbitrary start that only ever grows.
double monotonic_seconds();

// How fast a counter grows, from its latest readings, so that a slow start is soon forgotten:
// readings weigh exp(-age / window). Pure: the caller says what time it is.
class RateMeter {
 public:
  explicit RateMeter(double window_s = 10) : window_s_(window_s) {}
  // The counter stands at `count` at time t; the first call only sets the start. Times must not
  // fall.
  void update(double t, double count);
  double rate() const;  // per second; 0 before the second reading
  double eta_s(double total)
      const;  // seconds until the counter reaches total; infinite at rate 0, 0 if reached

 private:
  double window_s_, last_t_ = 0, last_count_ = 0, sum_t_ = 0, sum_n_ = 0;
  bool started_ = false;
};

// A line that shows the present state of something, given as text by whoever knows it (the trainer,
// a download).
class StatusLine {
 public:
  // plain_interval_s: least time between two lines where stderr is no terminal.
  explicit StatusLine(double plain_interval_s = 30) : plain_interval_s_(plain_interval_s) {}
  ~StatusLine();
  StatusLine(const StatusLine&) = delete;
  // True if update(text) would show something now; lets the caller skip making the text.
  bool due() const;
  void update(std::string_view text);
  // Removes the live line and, if given, leaves a last line that stays.
  void finish(std::string_view last = "");

 private:
  double plain_interval_s_, shown_at_ = -1e300;
  bool live_ = false;
};

// Counts towards a total and shows "label  45%  1.2M/2.7M tok  12.3k tok/s  2m05s left". Safe to
// add() from many threads.
class Progress {
 public:
  // total <= 0: unknown, no percentage and no time left. quiet: shows nothing (tests, libraries).
  Progress(std::string label, double total, std::string unit, bool quiet = false);
  ~Progress() { finish(); }
  void add(int64_t n) { set(done_.fetch_add(n, std::memory_order_relaxed) + n, false); }
  void set(int64_t done) { set(done, true); }
  int64_t done() const { return done_.load(std::memory_order_relaxed); }
  std::string text() const;  // the line as it is now
  void finish();             // "label  2.7M tok in 3m41s  12.3k tok/s"; once

 private:
  void set(int64_t done, bool store);
  std::string label_, unit_;
  double total_, start_s_;
  bool quiet_, finished_ = false;
  std::atomic<int64_t> done_{0};
  std::atomic<double> next_s_{0};
  mutable std::mutex mutex_;
  RateMeter meter_;
  StatusLine line_;
};

}  // namespace wels
