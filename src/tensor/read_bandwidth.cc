#include "tensor/read_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "base/threads.h"

namespace wels {
namespace {

constexpr int64_t kBlock = 1 << 15;  // words: 256 KB a work item

// Eight sums, so that the reads do not wait for the additions.
uint64_t sum_block(const uint64_t* p) {
  uint64_t sum[8] = {};
  for (int64_t i = 0; i < kBlock; i += 8) {
    for (int64_t j = 0; j < 8; ++j) sum[j] += p[i + j];
  }
  for (int j = 1; j < 8; ++j) sum[0] += sum[j];
  return sum[0];
}

}  // namespace

ReadBandwidth::ReadBandwidth(int64_t bytes)
    : bytes_(bytes / (kBlock * 8) * (kBlock * 8)),
      data_(static_cast<uint64_t*>(allocate_host(bytes_))) {
  int64_t blocks = bytes_ / 8 / kBlock;
  parallel_for(blocks, 1, [&](int64_t b, int64_t end) {
    for (int64_t i = b * kBlock; i < end * kBlock; ++i) data_[i] = static_cast<uint64_t>(i);
  });
}
ReadBandwidth::~ReadBandwidth() { free_host(data_, bytes_); }

double ReadBandwidth::measure(int repeats) {
  using Clock = std::chrono::steady_clock;
  int64_t blocks = bytes_ / 8 / kBlock;
  double best = 0;
  std::atomic<uint64_t> total{0};  // used, so that the reads are not optimised away
  for (int i = 0; i < repeats; ++i) {
    auto start = Clock::now();
    parallel_for(blocks, 1, [&](int64_t b, int64_t end) {
      uint64_t sum = 0;
      for (; b < end; ++b) sum += sum_block(data_ + b * kBlock);
      total.fetch_add(sum, std::memory_order_relaxed);
    });
    double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, static_cast<double>(bytes_) / seconds);
  }
  return best;
}

}  // namespace wels
