// The matrix products of device.h: which operands, which pack of the weight, which of the two
// shapes of product.
#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/product.h"
#include "backend/cpu/quant_product.h"
#include "base/threads.h"

namespace wels {
namespace {

std::vector<float> bias_of(const Weight& bias) {
  std::vector<float> scratch(static_cast<size_t>(bias.cols));
  Tensor row = weight_rows_f32(bias, 0, 0, 1, scratch.data());
  return {row.row<float>(0), row.row<float>(0) + bias.cols};
}

}  // namespace

void CpuDevice::matmul(const Tensor& x, const Weight& w, const Weight* bias, Tensor y, bool fp8) {
  if (x.rows == 0) return;
  if (is_quant_product(w, fp8)) {
    std::vector<float> b;
    if (bias) b = bias_of(*bias);
    return multiply_quant(*k_, pool_, {x, {}}, w, bias ? b.data() : nullptr, y);
  }
  const GemmOperands& ops = operands_for(*k_, x.dtype, w.full_precision);
  const PackedWeight& packed = product_weight(*k_, w, is_pairs(*k_, ops), fp8);
  std::vector<float> b;
  if (bias) b = bias_of(*bias);
  multiply_rows(*k_, ops, {x, &packed, {}, bias ? b.data() : nullptr, y, Accum::kSet, fp8});
}

void CpuDevice::matmul_dx(const Tensor& dy, const Weight& w, Tensor dx, Accum accum, bool fp8) {
  if (dy.rows == 0) return;
  const GemmOperands& ops = operands_for(*k_, dy.dtype, w.full_precision);
  multiply_rows(*k_, ops,
                {dy,
                 &packed_weight(*k_, w, PackDirection::kBackward, is_pairs(*k_, ops), fp8),
                 {},
                 nullptr,
                 dx,
                 accum,
                 fp8});
}

void CpuDevice::matmul_dw(const Tensor& dy, const Tensor& x, Tensor dw, Accum accum, bool fp8) {
  // An f32 side (the router's gradient) keeps the product in f32.
  bool f32 = dy.dtype == DType::kF32 || x.dtype == DType::kF32;
  TransposedProduct p{dy, x, dw, accum};
  multiply_transposed(*k_, operands_for(*k_, f32 ? DType::kF32 : DType::kBF16, false), {&p, 1},
                      fp8);
}

void CpuDevice::grouped_matmul(const Tensor& x, const Weight& w, const Tensor& offsets, Tensor y,
                               bool fp8) {
  if (x.rows == 0) return;
  std::span<const int32_t> rows_of = groups(offsets, w.experts(), x.rows);
  ExpertUse use(expert_share_, rows_of, pool_, expert_counts_);
  if (is_quant_product(w, fp8))
    return multiply_quant(*k_, pool_, {x, rows_of, &use}, w, nullptr, y);
  const GemmOperands& ops = operands_for(*k_, x.dtype, w.full_precision);
  multiply_rows(*k_, ops,
                {x, &product_weight(*k_, w, is_pairs(*k_, ops), fp8, &use), rows_of, nullptr, y,
                 Accum::kSet, fp8});
}

void CpuDevice::grouped_matmul_dx(const Tensor& dy, const Weight& w, const Tensor& offsets,
                                  Tensor dx, Accum accum, bool fp8) {
  if (dy.rows == 0) return;
  const GemmOperands& ops = operands_for(*k_, dy.dtype, w.full_precision);
  multiply_rows(*k_, ops,
                {dy, &packed_weight(*k_, w, PackDirection::kBackward, is_pairs(*k_, ops), fp8),
                 groups(offsets, w.experts(), dy.rows), nullptr, dx, accum, fp8});
}

void CpuDevice::grouped_matmul_dw(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                  std::span<const Tensor> dw, Accum accum, bool fp8) {
  bool f32 = dy.dtype == DType::kF32 || x.dtype == DType::kF32;
  std::span<const int32_t> o = groups(offsets, static_cast<int64_t>(dw.size()), x.rows);
  std::vector<TransposedProduct> products;
  for (size_t e = 0; e < dw.size(); ++e) {
    int64_t n = o[e + 1] - o[e];
    products.push_back({dy.row_range(o[e], n), x.row_range(o[e], n), dw[e], accum});
  }
  multiply_transposed(*k_, operands_for(*k_, f32 ? DType::kF32 : DType::kBF16, false), products,
                      fp8);
}

void CpuDevice::column_sum(const Tensor& dy, Tensor db, Accum accum) {
  if (dy.rows == 0 && accum == Accum::kAdd) return;
  int64_t panel = k_->gemm->panel;
  CHECK(db.cols == dy.cols);
  parallel_for((dy.cols + panel - 1) / panel, std::max<int64_t>(1, 65536 / (dy.rows * panel + 1)),
               [&](int64_t i, int64_t end) {
                 for (; i < end; ++i) {
                   Tensor part = dy.col_range(i * panel, std::min(panel, dy.cols - i * panel));
                   k_->gemm->column_sum(part.data, dy.dtype == DType::kBF16, dy.stride, dy.rows,
                                        part.cols, db.row<float>(0) + i * panel,
                                        accum == Accum::kAdd);
                 }
               });
}

// B is packed for all; a transposed A is packed by each work item for its rows.
void CpuDevice::gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                     float alpha, float beta, Tensor c) {
  int64_t m = c.rows, n = c.cols, depth = transpose_a ? a.rows : a.cols, panel = k_->gemm->panel;
  CHECK((transpose_a ? a.cols : a.rows) == m);
  CHECK((transpose_b ? b.cols : b.rows) == depth);
  CHECK((transpose_b ? b.rows : b.cols) == n);
  if (m == 0 || n == 0) return;
  const GemmOperands& ops = *k_->gemm->f32;
  int64_t panels = (n + panel - 1) / panel, panel_bytes = depth * panel * 4;
  auto* packed = thread_scratch<uint8_t>(Scratch::kOther, panels * panel_bytes);
  parallel_for(
      panels, std::max<int64_t>(1, 65536 / (panel * depth + 1)), [&](int64_t i, int64_t end) {
        for (; i < end; ++i) {
          int64_t cols = std::min(panel, n - i * panel);
          Tensor part = transpose_b ? b.row_range(i * panel, cols) : b.col_range(i * panel, cols);
          PackBlock p{part.data,   false,
                      part.stride, depth,
                      cols,        packed + i * panel_bytes,
                      panel_bytes, static_cast<int>(panel)};
          transpose_b ? ops.pack_n_major(p) : ops.pack_k_major(p);
        }
      });
  std::vector<float> ones(static_cast<size_t>(n), 1.0f);
  constexpr int64_t kRows = 4 * kTransposedWidth;
  parallel_for((m + kRows - 1) / kRows, 1, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      int64_t rows = std::min(kRows, m - i * kRows);
      Tensor to = c.row_range(i * kRows, rows);
      if (beta != 0 && beta != 1) {
        for (int64_t r = 0; r < rows; ++r) {
          for (float *x = to.row<float>(r), *last = x + n; x < last; ++x) *x *= beta;
        }
      }
      for (int64_t r = 0; r < rows; r += kTransposedWidth) {
        int64_t count = std::min<int64_t>(transpose_a ? kTransposedWidth : rows, rows - r);
        GemmBlock g{};
        if (transpose_a) {
          Tensor part = a.col_range(i * kRows + r, count);
          void* left = thread_scratch(Scratch::kA, depth * kTransposedWidth * 4);
          ops.pack_k_major(
              {part.data, false, part.stride, depth, count, left, 0, kTransposedWidth});
          g.a = left;
          g.a_row = 4;
          g.a_step = kTransposedWidth * 4;
          g.m = count;
          g.steps = depth;
        } else {
          g = left_block(a.row_range(i * kRows, rows), depth);
        }
        g.b = packed;
        g.b_panel = panel_bytes;
        g.n = n;
        if (alpha != 1) {
          g.row_scale = &alpha;
          g.row_scale_stride = 0;
          g.col_scale = ones.data();
        }
        set_result(g, to.row_range(r, count), beta == 0 ? Accum::kSet : Accum::kAdd);
        ops.multiply(g);
        if (!transpose_a) break;
      }
    }
  });
}

}  // namespace wels
