// Pool: reference-counted buffers with free lists by size, so that the memory of a training step is
// taken from the system once and reused, still warm in the cache, as soon as the last reader is
// gone. Not thread-safe: one pool per model run.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "tensor/tensor.h"

namespace wels {

class Pool {
 public:
  using Allocate = std::function<void*(int64_t bytes)>;
  using Free = std::function<void(void*, int64_t bytes)>;
  // Without arguments: 64-byte aligned host memory, huge pages where the system gives them.
  Pool();
  Pool(Allocate allocate, Free free);
  ~Pool();
  Pool(const Pool&) = delete;

  // An uninitialised buffer of at least `bytes`; goes back to the pool with its last owner.
  std::shared_ptr<void> take(int64_t bytes);
  // What take(bytes) takes from the system where it finds nothing to reuse.
  static int64_t size_class(int64_t bytes);
  int64_t bytes_now() const { return state_->now; }    // in use
  int64_t bytes_held() const { return state_->held; }  // taken from the system
  void trim();                                         // gives unused buffers back to the system

 private:
  struct State {
    Allocate allocate;
    Free free;
    std::map<int64_t, std::vector<void*>> idle;
    int64_t now = 0, held = 0;
  };
  std::shared_ptr<State> state_;
};

// 64-byte aligned host memory; blocks >= 2 MB are aligned to and advised for huge pages, and spread
// over all memory nodes where there are several. Throws Error when there is none.
void* allocate_host(int64_t bytes);
void free_host(void* p, int64_t bytes);
// All bytes of allocate_host in this process that free_host has not got back: weights, states,
// pools, packs and scratch of a CPU device, KV caches.
int64_t host_bytes();

// A tensor that owns its memory.
struct OwnedTensor {
  Tensor t;
  std::shared_ptr<void> memory;
};
OwnedTensor make_tensor(Pool& pool, DType dtype, int64_t rows, int64_t cols);

}  // namespace wels
