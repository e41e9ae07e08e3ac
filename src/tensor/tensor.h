// Tensor: a view of rows × cols elements with one row stride. Nothing more general exists in wels:
// a vector is one row, a batch of sequences is its rows one after another (see batch.h), heads lie
// side by side within a row.
#pragma once
#include <cstdint>

#include "base/check.h"
#include "tensor/dtype.h"

namespace wels {

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  // elements from one row to the next; >= cols

  Tensor() = default;
  Tensor(void* data, DType dtype, int64_t rows, int64_t cols)
      : Tensor(data, dtype, rows, cols, cols) {}
  Tensor(void* data, DType dtype, int64_t rows, int64_t cols, int64_t stride)
      : data(data), dtype(dtype), rows(rows), cols(cols), stride(stride) {}

  bool empty() const { return data == nullptr; }
  int64_t size() const { return rows * cols; }
  bool contiguous() const { return stride == cols || rows <= 1; }
  int64_t bytes() const { return rows * row_bytes(dtype, cols); }

  // Typed row pointer; T must be the element type (checked).
  template <class T>
  T* row(int64_t r) const {
    DCHECK(dtype == dtype_of<T>::value);
    return static_cast<T*>(data) + r * stride;
  }
  uint8_t* row_raw(int64_t r) const {
    return static_cast<uint8_t*>(data) + r * row_bytes(dtype, stride);
  }

  // Rows [begin, begin + n).
  Tensor row_range(int64_t begin, int64_t n) const {
    DCHECK(begin >= 0 && begin + n <= rows);
    return {row_raw(begin), dtype, n, cols, stride};
  }
  // Columns [begin, begin + n). Views are for kernels and for filling outputs; no differentiable op
  // returns one.
  Tensor col_range(int64_t begin, int64_t n) const {
    DCHECK(begin >= 0 && begin + n <= cols);
    return {static_cast<uint8_t*>(data) + row_bytes(dtype, begin), dtype, rows, n, stride};
  }
};

// What a gradient kernel does with what its output holds already.
enum class Accum : uint8_t { kSet, kAdd };

}  // namespace wels
