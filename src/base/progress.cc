#include "base/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <exception>
#include <utility>

#include "base/log.h"

namespace wels {
namespace {

constexpr double kRedrawSeconds = 0.1;

// Three digits: 1.23, 12.3, 123.
std::string three_digits(double v) {
  int decimals = v < 9.995 ? 2 : v < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}", v, decimals);
}

// v with the largest unit that leaves a figure of at least 1; whole numbers below the first step
// stay whole.
template <size_t N>
std::string scaled(double v, double base, const std::array<const char*, N>& units) {
  if (!std::isfinite(v)) return "?";
  if (v < 0) return std::string("-").append(scaled(-v, base, units));
  size_t u = 0;
  // 999.5 would print as "1000": it already belongs to the next unit.
  while (u + 1 < N && v >= (base == 1000 ? 999.5 : base)) {
    v /= base;
    ++u;
  }
  bool whole = u == 0 && (v == std::floor(v) || v >= 100);
  return (whole ? fmt::format("{:.0f}", v) : three_digits(v)) + units[u];
}

}  // namespace

std::string human_count(double n) {
  return scaled(n, 1000, std::array<const char*, 6>{"", "k", "M", "G", "T", "P"});
}

std::string human_bytes(double bytes) {
  return scaled(bytes, 1024,
                std::array<const char*, 6>{" B", " KiB", " MiB", " GiB", " TiB", " PiB"});
}

std::string human_rate(double per_second, std::string_view unit) {
  return fmt::format("{} {}/s", human_count(per_second), unit);
}

std::string human_duration(double s) {
  if (!std::isfinite(s)) return "?";
  if (s < 0) return std::string("-").append(human_duration(-s));
  if (s < 0.995) return fmt::format("{:.2f}s", s);
  if (s < 9.95) return fmt::format("{:.1f}s", s);
  if (s < 59.5) return fmt::format("{:.0f}s", s);
  auto whole = static_cast<int64_t>(std::min(std::round(s), 1e15));
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  int64_t minutes = (whole + 30) / 60;
  if (minutes < 24 * 60) return fmt::format("{}h{:02}m", minutes / 60, minutes % 60);
  int64_t hours = (minutes + 30) / 60;
  return fmt::format("{}d{:02}h", hours / 24, hours % 24);
}

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void RateMeter::update(double t, double count) {
  double dt = t - last_t_;
  if (started_ && dt <= 0)
    return;  // the same moment again: the next reading takes these counts with it
  if (started_) {
    double keep = std::exp(-dt / window_s_);
    sum_t_ = sum_t_ * keep + dt;
    sum_n_ = sum_n_ * keep + (count - last_count_);
  }
  started_ = true;
  last_t_ = t;
  last_count_ = count;
}

double RateMeter::rate() const { return sum_t_ > 0 ? sum_n_ / sum_t_ : 0; }

double RateMeter::eta_s(double total) const {
  if (last_count_ >= total) return 0;
  double r = rate();
  return r > 0 ? (total - last_count_) / r : std::numeric_limits<double>::infinity();
}

StatusLine::~StatusLine() {
  if (live_) terminal::set_status("");
}

bool StatusLine::due() const {
  double interval = terminal::is_tty() ? kRedrawSeconds : plain_interval_s_;
  return monotonic_seconds() - shown_at_ >= interval;
}

void StatusLine::update(std::string_view text) {
  if (!due()) return;
  shown_at_ = monotonic_seconds();
  if (terminal::is_tty()) {
    live_ = true;
    terminal::set_status(text);
  } else {
    terminal::write_line(text);
  }
}

void StatusLine::finish(std::string_view last) {
  if (std::exchange(live_, false)) terminal::set_status("");
  if (!last.empty()) terminal::write_line(last);
}

Progress::Progress(std::string label, double total, std::string unit, bool quiet)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      start_s_(monotonic_seconds()),
      quiet_(quiet) {
  meter_.update(start_s_, 0);
  // Short work off a terminal leaves its last line only.
  next_s_ = start_s_ + (terminal::is_tty() ? kRedrawSeconds : 10);
}

void Progress::set(int64_t done, bool store) {
  if (store) done_.store(done, std::memory_order_relaxed);
  double now = monotonic_seconds();
  if (now < next_s_.load(std::memory_order_relaxed)) return;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return;  // another thread is drawing
  next_s_ = now + kRedrawSeconds;
  meter_.update(now, static_cast<double>(done_.load(std::memory_order_relaxed)));
  lock.unlock();
  if (quiet_) return;
  std::string line = text();
  lock.lock();
  if (!finished_) line_.update(line);
}

std::string Progress::text() const {
  std::lock_guard lock(mutex_);
  double done = static_cast<double>(this->done());
  std::string out = label_;
  if (total_ > 0) {
    // Rounded down: 100% only when it is.
    out += fmt::format("  {:.0f}%  {}/{} {}", std::floor(std::min(done / total_, 1.0) * 100),
                       human_count(done), human_count(total_), unit_);
  } else {
    out += fmt::format("  {} {}", human_count(done), unit_);
  }
  if (meter_.rate() > 0) {
    out += "  " + human_rate(meter_.rate(), unit_);
    if (total_ > 0) out += "  " + human_duration(meter_.eta_s(total_)) + " left";
  }
  return out;
}

void Progress::finish() {
  std::lock_guard lock(mutex_);
  if (std::exchange(finished_, true)) return;
  double seconds = monotonic_seconds() - start_s_, n = static_cast<double>(done());
  if (quiet_) return;
  // Of work that failed its error tells.
  if (std::uncaught_exceptions() > 0) return line_.finish();
  line_.finish(fmt::format("{}  {} {} in {}  {}", label_, human_count(n), unit_,
                           human_duration(seconds),
                           human_rate(n / std::max(seconds, 1e-9), unit_)));
}

}  // namespace wels
