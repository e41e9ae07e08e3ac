// What every checkpoint format has in common: named tensors, read as views of mapped bytes and
// written as streams.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace wels {

// A tensor in a mapped file. `data` lives as long as the file's object and may be unaligned in
// files of careless writers (see aligned()). Rows are shape[0] (of a stack of matrices: all leading
// dimensions), the last dimension is contiguous.
struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // slowest dimension first, as in HF; {}: one element
  std::span<const uint8_t> data;

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    return n;
  }
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
  // Whether data may be read through a pointer of the element type.
  bool aligned() const {
    int unit = is_quantised(dtype) ? 1 : info(dtype).bytes;
    return reinterpret_cast<uintptr_t>(data.data()) % static_cast<uintptr_t>(unit) == 0;
  }
  // A read-only 2-D view [elements / cols, cols] of the mapped bytes; whoever takes it must not
  // write through it.
  Tensor view() const {
    int64_t c = cols();
    return {const_cast<uint8_t*>(data.data()), dtype, c == 0 ? 0 : elements() / c, c};
  }
};

// Takes the bytes of one tensor, in as many parts as the caller likes.
using ByteSink = std::function<void(const void* data, size_t bytes)>;

// A tensor to be written: `write` is called once, when its turn comes, and must hand over exactly
// its bytes. So a model is saved without a second copy of it in memory.
struct TensorSource {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // slowest dimension first
  std::function<void(const ByteSink&)> write;
};

// The source that copies an entry; the entry's file must stay open.
inline TensorSource copy_of(const TensorEntry& e) {
  return {e.name, e.dtype, e.shape,
          [d = e.data](const ByteSink& sink) { sink(d.data(), d.size()); }};
}

// Bytes of a tensor, or nothing where a dimension is negative, the last is no multiple of the
// block, or 2^62 is exceeded.
inline std::optional<int64_t> tensor_bytes(DType dtype, const std::vector<int64_t>& shape) {
  constexpr int64_t kMost = int64_t{1} << 62;
  bool empty = false;
  int64_t n = 1;
  for (int64_t s : shape) {
    if (s < 0) return std::nullopt;
    if (s == 0) empty = true;
    if (s > 0 && (__builtin_mul_overflow(n, s, &n) || n > kMost)) return std::nullopt;
  }
  const DTypeInfo& i = info(dtype);
  int64_t cols = shape.empty() ? 1 : shape.back();
  if (cols % i.block != 0) return std::nullopt;
  if (empty) return 0;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(n / i.block, static_cast<int64_t>(i.bytes), &bytes) || bytes > kMost)
    return std::nullopt;
  return bytes;
}

}  // namespace wels
