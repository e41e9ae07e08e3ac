// Row ops of the CPU device: copies, gathers, embedding, norms, RoPE. All are bound by memory: each
// element is read and written once, rows are split over the threads, and what sums over rows does
// so in blocks of fixed size whose partial sums are added in order, so that the bits do not depend
// on the number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/row_type.h"

namespace wels {
namespace {

constexpr int64_t kSumBlock = 64;  // rows per partial sum

// out [cols] += the partial sums [blocks, cols] in order.
void add_partials(const RowKernels& k, const std::vector<float>& partial, int64_t cols,
                  float* out) {
  int64_t blocks = static_cast<int64_t>(partial.size()) / std::max<int64_t>(cols, 1);
  for (int64_t b = 0; b < blocks; ++b) k.copy[0][0](partial.data() + b * cols, out, cols, true);
}

}  // namespace

void CpuDevice::copy(const Tensor& src, Tensor dst, Accum accum) {
  if (accum == Accum::kSet && src.dtype == dst.dtype) {
    for_elements({&src, &dst}, [&](int64_t r, int64_t c, int64_t n) {
      std::memcpy(element(dst, r, c), element(src, r, c),
                  static_cast<size_t>(row_bytes(src.dtype, n)));
    });
    return;
  }
  if (!are_row_types({&src, &dst})) return RefDevice::copy(src, dst, accum);
  auto kernel = k_->rows->copy[row_type(src)][row_type(dst)];
  for_elements({&src, &dst}, [&](int64_t r, int64_t c, int64_t n) {
    kernel(element(src, r, c), element(dst, r, c), n, accum == Accum::kAdd);
  });
}

void CpuDevice::zero(Tensor t) {
  for_elements({&t}, [&](int64_t r, int64_t c, int64_t n) {
    std::memset(element(t, r, c), 0, static_cast<size_t>(row_bytes(t.dtype, n)));
  });
}

void CpuDevice::gather_rows(const Tensor& x, const Tensor& index, Tensor y) {
  CHECK(index.size() == y.rows);
  const bool blocks = x.dtype == DType::kQ8_0 && x.dtype != y.dtype;
  if (x.dtype != y.dtype && !(is_row_type(y) && (blocks || is_row_type(x))))
    return RefDevice::gather_rows(x, index, y);
  auto decode = k_->rows->from_q8_0[row_type(y)];
  auto convert = k_->rows->copy[row_type(x)][row_type(y)];
  size_t bytes = static_cast<size_t>(row_bytes(y.dtype, y.cols));
  parallel_for(y.rows, row_grain(y.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int32_t from = ids(index)[i];
      DCHECK(from < x.rows);
      if (from < 0) {
        std::memset(y.row_raw(i), 0, bytes);
      } else if (blocks) {
        decode(x.row_raw(from), y.row_raw(i), y.cols);
      } else if (x.dtype != y.dtype) {
        convert(x.row_raw(from), y.row_raw(i), y.cols, false);
      } else {
        std::memcpy(y.row_raw(i), x.row_raw(from), bytes);
      }
    }
  });
}

void CpuDevice::scatter_rows(const Tensor& x, const Tensor& index, Tensor y) {
  CHECK(index.size() == x.rows);
  const bool blocks = y.dtype == DType::kQ8_0 && x.dtype != y.dtype;
  if (x.dtype != y.dtype && !(is_row_type(x) && (blocks || is_row_type(y))))
    return RefDevice::scatter_rows(x, index, y);
  CHECK(y.cols == (blocks ? (x.cols + 31) / 32 * 32 : x.cols));
  auto encode = k_->rows->to_q8_0[row_type(x)];
  auto convert = k_->rows->copy[row_type(x)][row_type(y)];
  size_t bytes = static_cast<size_t>(row_bytes(x.dtype, x.cols));
  parallel_for(x.rows, row_grain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int32_t to = ids(index)[i];
      DCHECK(to < y.rows);
      if (to < 0) continue;
      if (blocks) {
        encode(x.row_raw(i), y.row_raw(to), x.cols);
      } else if (x.dtype != y.dtype) {
        convert(x.row_raw(i), y.row_raw(to), x.cols, false);
      } else {
        std::memcpy(y.row_raw(to), x.row_raw(i), bytes);
      }
    }
  });
}

void CpuDevice::gather_sum(const Tensor& x, const Tensor& index, Tensor y, Accum accum) {
  if (!are_row_types({&x, &y})) return RefDevice::gather_sum(x, index, y, accum);
  CHECK(index.rows == y.rows);
  auto kernel = k_->rows->gather_sum[row_type(x)][row_type(y)];
  int64_t step = row_bytes(x.dtype, x.stride);
  parallel_for(y.rows, row_grain(y.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      kernel(x.data, step, index.row<int32_t>(t), index.cols, y.row_raw(t), y.cols,
             accum == Accum::kAdd);
    }
  });
}

void CpuDevice::embed(const Tensor& token, const Weight& w, Tensor y) {
  const Tensor& table = w.value[0];
  if (!are_row_types({&table, &y})) return RefDevice::embed(token, w, y);
  auto kernel = k_->rows->copy[row_type(table)][row_type(y)];
  parallel_for(y.rows, row_grain(y.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int32_t id = ids(token)[i];
      CHECK(id >= 0 && id < w.rows);
      kernel(table.row_raw(id), y.row_raw(i), y.cols, false);
    }
  });
}

// Rows of dw are dealt out to the threads; each goes through the whole batch and takes the tokens
// it owns, so that a row gets its additions in the order of the batch.
void CpuDevice::embed_backward(const Tensor& token, const Tensor& dy, Tensor dw) {
  if (!is_row_type(dy) || dw.dtype != DType::kF32) return RefDevice::embed_backward(token, dy, dw);
  auto kernel = k_->rows->copy[row_type(dy)][0];
  int64_t owners = std::clamp<int64_t>(dy.size() / kChunkElements, 1, thread_count());
  parallel_for(owners, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < dy.rows; ++i) {
      int64_t owner = ids(token)[i] % owners;
      if (owner >= begin && owner < end)
        kernel(dy.row_raw(i), dw.row<float>(ids(token)[i]), dy.cols, true);
    }
  });
}

void CpuDevice::rms_norm(const Tensor& x, const Weight& gain, float eps, Tensor y, Tensor inv_rms) {
  const Tensor& g = gain.value[0];
  if (!are_row_types({&x, &y, &g})) return RefDevice::rms_norm(x, gain, eps, y, inv_rms);
  CHECK(g.cols == x.cols);
  std::vector<float> widened(g.dtype == DType::kF32 ? 0 : static_cast<size_t>(g.cols));
  if (!widened.empty()) k_->rows->copy[row_type(g)][0](g.data, widened.data(), g.cols, false);
  const float* gains = widened.empty() ? g.row<float>(0) : widened.data();
  auto kernel = k_->rows->rms_norm[row_type(x)][row_type(y)];
  parallel_for(x.rows, row_grain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float inv = kernel(x.row_raw(r), gains, eps, y.row_raw(r), x.cols);
      if (!inv_rms.empty()) *inv_rms.row<float>(r) = inv;
    }
  });
}

void CpuDevice::rms_norm_backward(const Tensor& x, const Weight& gain, const Tensor& inv_rms,
                                  const Tensor& dy, Tensor dx, Accum accum, Tensor dgain) {
  const Tensor& g = gain.value[0];
  bool known = are_row_types({&x, &dy}) && g.dtype == DType::kF32 &&
               (dx.empty() || dx.dtype == x.dtype) && (dgain.empty() || dgain.dtype == DType::kF32);
  if (!known) return RefDevice::rms_norm_backward(x, gain, inv_rms, dy, dx, accum, dgain);
  auto kernel = k_->rows->rms_norm_backward[row_type(x)][row_type(dy)];
  int64_t blocks = (x.rows + kSumBlock - 1) / kSumBlock;
  std::vector<float> partial(dgain.empty() ? 0 : static_cast<size_t>(blocks * x.cols));
  parallel_for(blocks, row_grain(x.cols * kSumBlock), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      float* sum = partial.empty() ? nullptr : partial.data() + b * x.cols;
      for (int64_t r = b * kSumBlock; r < std::min(x.rows, (b + 1) * kSumBlock); ++r) {
        kernel(x.row_raw(r), g.row<float>(0), *inv_rms.row<float>(r), dy.row_raw(r),
               dx.empty() ? nullptr : dx.row_raw(r), accum == Accum::kAdd, sum, x.cols);
      }
    }
  });
  if (!dgain.empty()) add_partials(*k_->rows, partial, x.cols, dgain.row<float>(0));
}

void CpuDevice::rope(const Tensor& x, const Tensor& pos, const Tensor& cos, const Tensor& sin,
                     const RopeParams& p, Tensor y, Accum accum) {
  if (!are_row_types({&x, &y}) || x.dtype != y.dtype || cos.dtype != DType::kF32 ||
      sin.dtype != DType::kF32) {
    return RefDevice::rope(x, pos, cos, sin, p, y, accum);
  }
  CHECK(x.cols == int64_t{p.heads} * p.head_dim);
  CHECK(cos.cols == p.rotated / 2);
  auto kernel = k_->rows->rope[row_type(x)];
  parallel_for(x.rows, row_grain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      int32_t at = ids(pos)[r];
      DCHECK(at >= 0 && at < cos.rows);
      for (int h = 0; h < p.heads; ++h) {
        int64_t c = int64_t{h} * p.head_dim;
        kernel(element(x, r, c), cos.row<float>(at), sin.row<float>(at), p.rotated, p.interleaved,
               p.inverse, element(y, r, c), p.head_dim, accum == Accum::kAdd);
      }
    }
  });
}

void CpuDevice::add(const Tensor& a, const Tensor& b, Tensor y) {
  if (!are_row_types({&a, &b}) || y.dtype != a.dtype) return RefDevice::add(a, b, y);
  auto kernel = k_->rows->add[row_type(a)][row_type(b)];
  for_elements({&y, &a, &b}, [&](int64_t r, int64_t c, int64_t n) {
    kernel(element(a, r, c), element(b, r, c), element(y, r, c), n);
  });
}

}  // namespace wels
