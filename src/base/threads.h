// Threads: one OpenMP pool for the whole program. parallel_for splits [0, n) into contiguous chunks
// by a rule that does not depend on timing; whoever needs bits that are independent of the thread
// count must not let a chunk's bounds influence a sum.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace wels {

inline int thread_count() { return omp_get_max_threads(); }
inline void set_thread_count(int n) { omp_set_num_threads(n); }

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

// Calls fn(i) for every i in [0, n), handing out items one by one: for work items of unequal size.
template <class Fn>
void parallel_tasks(int64_t n, Fn&& fn) {
  if (n <= 0) return;
  if (n == 1 || thread_count() == 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < n; ++i) fn(i);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) {
    try {
      fn(i);
    } catch (...) {
#pragma omp critical(wels_parallel_for_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace wels
