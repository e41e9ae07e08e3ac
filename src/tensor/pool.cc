#include "tensor/pool.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "base/error.h"
#include "base/memory_nodes.h"

namespace wels {
namespace {

constexpr int64_t kHugePage = 2 << 20;

std::atomic<int64_t> host_bytes_now = 0;

}  // namespace

void* allocate_host(int64_t bytes) {
  int64_t align = bytes >= kHugePage ? kHugePage : 64;
  int64_t size = (std::max<int64_t>(bytes, 1) + 63) / 64 * 64;
  void* p = nullptr;
  if (::posix_memalign(&p, static_cast<size_t>(align), static_cast<size_t>(size)) != 0) {
    throw Error("memory",
                fmt::format("cannot allocate {:.1f} MB", static_cast<double>(bytes) / 1e6),
                "use a smaller batch, sequence length or model");
  }
  // Whole huge pages only: one more for the rest would be resident to its end.
  if (bytes >= kHugePage) {
    ::madvise(p, static_cast<size_t>(bytes / kHugePage * kHugePage), MADV_HUGEPAGE);
    static const std::vector<int> nodes = memory_nodes();
    if (nodes.size() > 1) spread_over_nodes(p, bytes / kHugePage * kHugePage, nodes);
  }
  host_bytes_now.fetch_add(bytes, std::memory_order_relaxed);
  return p;
}

void free_host(void* p, int64_t bytes) {
  if (p) host_bytes_now.fetch_sub(bytes, std::memory_order_relaxed);
  std::free(p);
}

int64_t host_bytes() { return host_bytes_now.load(std::memory_order_relaxed); }

// Rounded up so that batches of nearly equal shape share buffers: to 1/8 of the next power of two,
// 64 at least.
int64_t Pool::size_class(int64_t bytes) {
  int64_t step = 64;
  while (step * 16 < bytes) step *= 2;
  return (std::max<int64_t>(bytes, 1) + step - 1) / step * step;
}

Pool::Pool() : Pool(allocate_host, free_host) {}
Pool::Pool(Allocate allocate, Free free) : state_(std::make_shared<State>()) {
  state_->allocate = std::move(allocate);
  state_->free = std::move(free);
}
Pool::~Pool() { trim(); }

std::shared_ptr<void> Pool::take(int64_t bytes) {
  State* s = state_.get();
  int64_t size = size_class(bytes);
  void* p;
  // An idle buffer of up to twice the size serves as well as a new one: what a forward left behind
  // goes on in the backward, and a shorter micro-batch lives in a longer one's buffers.
  auto it = s->idle.lower_bound(size);
  if (it != s->idle.end() && it->first <= 2 * size) {
    size = it->first;
    p = it->second.back();
    it->second.pop_back();
    if (it->second.empty()) s->idle.erase(it);
  } else {
    p = s->allocate(size);
    s->held += size;
  }
  s->now += size;
  // The deleter holds the state, not the pool, so a buffer may outlive the pool: the last one frees
  // itself.
  return {p, [state = state_, size](void* q) {
            state->now -= size;
            if (state.use_count() == 1) {
              state->free(q, size);
            } else {
              state->idle[size].push_back(q);
            }
          }};
}

void Pool::trim() {
  for (auto& [size, buffers] : state_->idle) {
    for (void* p : buffers) state_->free(p, size);
    state_->held -= size * static_cast<int64_t>(buffers.size());
  }
  state_->idle.clear();
}

OwnedTensor make_tensor(Pool& pool, DType dtype, int64_t rows, int64_t cols) {
  OwnedTensor out;
  out.memory = pool.take(rows * row_bytes(dtype, cols));
  out.t = Tensor(out.memory.get(), dtype, rows, cols);
  return out;
}

}  // namespace wels
