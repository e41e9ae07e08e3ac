// Counters of the server in Prometheus' text format.
#pragma once
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <string>

#include "serve/engine_thread.h"
#include "serve/generation.h"

namespace wels {

// Counts of values in ranges, and their sum.
class Histogram {
 public:
  void add(double seconds);
  void write(std::string& out, const char* name, const char* help) const;

 private:
  static constexpr std::array kBounds = {0.005, 0.01, 0.025, 0.05, 0.1,  0.25, 0.5,
                                         1.0,   2.5,  5.0,   10.0, 30.0, 60.0, 300.0};
  mutable std::mutex mutex_;
  std::array<int64_t, kBounds.size() + 1> counts_{};
  double sum_ = 0;
};

class Metrics {
 public:
  void answered(const std::string& route, int status);
  void used(const Usage& usage);
  Histogram first_token_s, request_s;
  std::atomic<int64_t> active{0}, queued{0}, cancelled{0};
  std::string text(const EngineThread::Stats& engine, int64_t connections) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;
  Usage used_;
};

}  // namespace wels
