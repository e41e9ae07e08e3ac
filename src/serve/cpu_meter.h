// CpuMeter: what a thread's CPU did between its beginning and its end.
#pragma once
#include <time.h>

#include <atomic>
#include <cstdint>

namespace wels {

inline int64_t thread_cpu_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * int64_t{1'000'000'000} + t.tv_nsec;
}

// Adds to `sum`; null: measures nothing.
class CpuMeter {
 public:
  explicit CpuMeter(std::atomic<int64_t>* sum) : sum_(sum), begin_(sum ? thread_cpu_ns() : 0) {}
  ~CpuMeter() {
    if (sum_) *sum_ += thread_cpu_ns() - begin_;
  }
  CpuMeter(const CpuMeter&) = delete;

 private:
  std::atomic<int64_t>* sum_;
  int64_t begin_;
};

}  // namespace wels
