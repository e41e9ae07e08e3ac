// Threads: OpenMP's. Every thread that computes has workers of its own, as many as thread_count()
// says there; make_thread hands that number on, so that what was set holds for the whole program.
// parallel_for splits [0, n) into contiguous chunks by a rule that does not depend on timing;
// whoever needs bits that are independent of the thread count must not let a chunk's bounds
// influence a sum.
#pragma once
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

namespace wels {

// Of the thread that calls, itself included.
inline int thread_count() { return omp_get_max_threads(); }
inline void set_thread_count(int n) { omp_set_num_threads(n); }

// A thread that runs fn() and computes with as many threads as the one that makes it.
template <class Fn>
std::thread make_thread(Fn fn) {
  return std::thread([n = thread_count(), fn = std::move(fn)]() mutable {
    set_thread_count(n);
    fn();
  });
}

// Calls fn(begin, end) on contiguous chunks of [0, n), at least `grain` items each, in parallel.
// The first exception thrown by any chunk is rethrown here.
template <class Fn>
void parallel_for(int64_t n, int64_t grain, Fn&& fn) {
  if (n <= 0) return;
  int64_t chunks = std::clamp<int64_t>(n / std::max<int64_t>(grain, 1), 1, thread_count());
  if (chunks == 1 || omp_in_parallel()) {
    fn(int64_t{0}, n);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(chunks))
  for (int64_t c = 0; c < chunks; ++c) {
    try {
      fn(n * c / chunks, n * (c + 1) / chunks);
    } catch (...) {
#pragma omp critical(wels_parallel_for_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

// Calls fn(i) for every i in [0, n), handing out items one by one. kInTurn: whoever is free
// takes the next item. kNeighbours: each thread has a run of items of its own and takes from the
// others' runs when it is through: for items of equal size that lie side by side in memory.
enum class Order { kInTurn, kNeighbours };
template <class Fn>
void parallel_tasks(int64_t n, Fn&& fn, Order order = Order::kInTurn) {
  if (n <= 0) return;
  if (n == 1 || thread_count() == 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < n; ++i) fn(i);
    return;
  }
  int64_t runs = order == Order::kNeighbours ? std::min<int64_t>(thread_count(), n) : 1;
  struct alignas(64) Run {
    std::atomic<int64_t> next;
    int64_t end;
  };
  std::vector<Run> of(static_cast<size_t>(runs));
  for (int64_t r = 0; r < runs; ++r) {
    of[static_cast<size_t>(r)].next = n * r / runs;
    of[static_cast<size_t>(r)].end = n * (r + 1) / runs;
  }
  std::exception_ptr error;
#pragma omp parallel
  for (int64_t r = 0; r < runs; ++r) {
    Run& run = of[static_cast<size_t>((r + omp_get_thread_num()) % runs)];
    for (int64_t i; (i = run.next.fetch_add(1, std::memory_order_relaxed)) < run.end;) {
      try {
        fn(i);
      } catch (...) {
#pragma omp critical(wels_parallel_for_error)
        if (!error) error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace wels
