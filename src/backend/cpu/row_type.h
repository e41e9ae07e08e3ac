// What the row ops of the CPU device share: the kernels' numbering of element types, and the
// division of work.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "base/threads.h"
#include "tensor/tensor.h"

namespace wels {

// 0: f32, 1: bf16, as isa/row_kernels.h numbers them.
inline int row_type(const Tensor& t) { return t.dtype == DType::kBF16 ? 1 : 0; }
inline bool is_row_type(const Tensor& t) {
  return t.dtype == DType::kF32 || t.dtype == DType::kBF16;
}
// All of them f32 or bf16. An empty tensor passes.
inline bool are_row_types(std::initializer_list<const Tensor*> list) {
  for (const Tensor* t : list) {
    if (!is_row_type(*t)) return false;
  }
  return true;
}

inline uint8_t* element(const Tensor& t, int64_t r, int64_t c) {
  return t.row_raw(r) + row_bytes(t.dtype, c);
}
inline const int32_t* ids(const Tensor& t) { return static_cast<const int32_t*>(t.data); }

constexpr int64_t kChunkElements = 1 << 14;  // a thread is woken for no less: about 5 µs of work

// Least rows of `cols` elements worth a thread.
inline int64_t row_grain(int64_t cols) { return kChunkElements / (cols + 1) + 1; }

// fn(row, column, n) over all elements of tensors of one shape: row by row, or, where all of them
// are contiguous, in runs that ignore row ends (column counts from the start of the tensor then).
// For elementwise ops only.
template <class Fn>
void for_elements(std::initializer_list<const Tensor*> tensors, Fn&& fn) {
  const Tensor& first = **tensors.begin();
  bool flat = true;
  for (const Tensor* t : tensors) {
    CHECK(t->rows == first.rows);
    CHECK(t->cols == first.cols);
    flat = flat && t->contiguous();
  }
  if (flat) {
    constexpr int64_t kRun = 1 << 12;
    int64_t size = first.size();
    parallel_for((size + kRun - 1) / kRun, kChunkElements / kRun, [&](int64_t begin, int64_t end) {
      int64_t stop = end * kRun < size ? end * kRun : size;
      fn(int64_t{0}, begin * kRun, stop - begin * kRun);
    });
    return;
  }
  parallel_for(first.rows, row_grain(first.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) fn(r, int64_t{0}, first.cols);
  });
}

}  // namespace wels
