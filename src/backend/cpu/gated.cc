// SwiGLU with its products, block of rows by block of rows, so that what lies between the products
// is worked on in the cache.
//
// Forward: a block of x is read (widened, rounded to E4M3) once for both weights; each strip of g
// and u is joined to y where it was just computed, and without a tape goes no further. Backward: g
// and u of a block become dg and du, and both products go into one f32 sum. Gradients of the
// weights: x is packed once for both (product.cc).
#include <algorithm>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/product.h"
#include "backend/cpu/quant_product.h"
#include "backend/cpu/row_type.h"

namespace wels {
namespace {

struct Gated {
  const Kernels& k;
  const GemmOperands& ops;
  const PackedWeight &gate, &up;
  bool fp8;

  Gated(const Kernels& k, DType activation, const Weight& gate, const Weight& up,
        PackDirection direction, bool fp8, ExpertUse* use)
      : k(k),
        ops(operands_for(k, activation, gate.full_precision)),
        gate(pack(k, ops, gate, direction, fp8, use)),
        up(pack(k, ops, up, direction, fp8, use)),
        fp8(fp8) {
    CHECK(gate.rows == up.rows);
    CHECK(gate.cols == up.cols);
    CHECK(gate.experts() == up.experts());
    CHECK(gate.full_precision == up.full_precision);
  }

  static const PackedWeight& pack(const Kernels& k, const GemmOperands& ops, const Weight& w,
                                  PackDirection direction, bool fp8, ExpertUse* use) {
    bool pairs = is_pairs(k, ops);
    return direction == PackDirection::kForward ? product_weight(k, w, pairs, fp8, use)
                                                : packed_weight(k, w, direction, pairs, fp8);
  }

  std::vector<RowItem> items(int64_t rows, std::span<const int32_t> offsets,
                             RowSplit::Columns columns) const {
    return row_items(k, {.rows = rows,
                         .depth = gate.k,
                         .cols = gate.n,
                         .element_bytes = is_pairs(k, ops) ? 2 : 4,
                         .offsets = offsets,
                         .columns = columns,
                         .part = depth_part(gate, is_pairs(k, ops))});
  }

  // g, u: empty if nobody keeps them. after: what this thread does next, or null.
  void forward(const RowItem& it, const RowItem* after, const Tensor& all_x, const Tensor& all_y,
               const Tensor& g, const Tensor& u) const {
    LeftRows x = left_rows(k, ops, all_x.row_range(it.row, it.rows), fp8);
    const int64_t strip = strip_of(it, k.gemm->panel);
    join_strips(k, it, strip, all_y, g, u, [&](int64_t c, const Tensor& gs, const Tensor& us) {
      RightColumns of_gate{gate, it.expert, c}, of_up{up, it.expert, c};
      of_gate.next = of_up.panels(k);
      if (c + strip < it.col + it.cols) {
        of_up.next = RightColumns{gate, it.expert, c + strip}.panels(k);
      } else if (after) {
        of_up.next = RightColumns{gate, after->expert, after->col}.panels(k);
      }
      multiply_left(k, ops, x, of_gate, gs, Accum::kSet);
      multiply_left(k, ops, x, of_up, us, Accum::kSet);
    });
  }

  void backward(const RowItem& it, const Tensor& dy, const Tensor& all_g, const Tensor& all_u,
                const Tensor& dx, Accum accum) const {
    Tensor g = all_g.row_range(it.row, it.rows), u = all_u.row_range(it.row, it.rows);
    auto part = k.rows->swiglu_backward[row_type(dy)];
    for (int64_t r = 0; r < it.rows; ++r) {
      part(g.row_raw(r), u.row_raw(r), dy.row_raw(it.row + r), g.row_raw(r), u.row_raw(r), dy.cols);
    }
    if (dx.empty()) return;
    Tensor sum(thread_scratch<float>(Scratch::kOther, it.rows * dx.cols), DType::kF32, it.rows,
               dx.cols);
    multiply_left(k, ops, left_rows(k, ops, g, fp8), {gate, it.expert}, sum, Accum::kSet);
    multiply_left(k, ops, left_rows(k, ops, u, fp8), {.b = up, .expert = it.expert, .init = sum},
                  dx.row_range(it.row, it.rows), accum);
  }
};

}  // namespace

void CpuDevice::gated_matmul(const Tensor& x, const Weight& gate, const Weight& up,
                             const Tensor& offsets, Tensor y, Tensor g, Tensor u, bool fp8) {
  if (x.rows == 0) return;
  CHECK(is_row_type(y) && y.dtype == x.dtype);
  CHECK(g.empty() == u.empty());
  for (const Tensor& t : {y, g, u})
    CHECK(t.empty() || (t.dtype == x.dtype && t.rows == x.rows && t.cols == gate.rows));
  std::span<const int32_t> rows_of = groups(offsets, gate.experts(), x.rows);
  if (is_quant_product(gate, fp8) && is_quant_product(up, fp8)) {
    ExpertUse use(expert_share_, rows_of, pool_, expert_counts_);
    return multiply_quant_gated(*k_, pool_, {x, rows_of, &use}, gate, up, y, g, u);
  }
  if (is_quant_product(gate, fp8) != is_quant_product(up, fp8)) {
    // Two kinds of product, one after the other, as a checkpoint may mix types.
    OwnedTensor own[2];
    auto whole = [&](const Weight& w, Tensor& t, OwnedTensor& mine) {
      if (t.empty()) t = (mine = make_tensor(pool_, x.dtype, x.rows, gate.rows)).t;
      offsets.empty() ? matmul(x, w, nullptr, t, fp8) : grouped_matmul(x, w, offsets, t, fp8);
    };
    whole(gate, g, own[0]);
    whole(up, u, own[1]);
    return swiglu(g, u, y);
  }
  ExpertUse use(expert_share_, rows_of, pool_, expert_counts_);
  Gated job(*k_, x.dtype, gate, up, PackDirection::kForward, fp8, &use);
  std::vector<RowItem> items = job.items(x.rows, rows_of, RowSplit::kSplit);
  run_items(
      items.size(), 4 * x.rows * gate.rows * gate.cols,
      [&](size_t i) { job.forward(items[i], item_after(items, i), x, y, g, u); }, order_of(items));
}

void CpuDevice::swiglu(const Tensor& g, const Tensor& u, Tensor y) {
  CHECK(is_row_type(y) && g.dtype == y.dtype && u.dtype == y.dtype);
  CHECK(g.rows == y.rows && u.rows == y.rows && g.cols == y.cols && u.cols == y.cols);
  parallel_for(y.rows, row_grain(y.cols), [&](int64_t r, int64_t end) {
    for (; r < end; ++r)
      k_->rows->swiglu[row_type(y)](g.row_raw(r), u.row_raw(r), y.row_raw(r), y.cols);
  });
}

void CpuDevice::gated_matmul_dx(const Tensor& dy, const Weight& gate, const Weight& up,
                                const Tensor& offsets, Tensor g, Tensor u, Tensor dx, Accum accum,
                                bool fp8) {
  if (dy.rows == 0) return;
  CHECK(is_row_type(dy));
  for (const Tensor& t : {g, u})
    CHECK(t.dtype == dy.dtype && t.rows == dy.rows && t.cols == dy.cols);
  CHECK(dx.empty() || (dx.rows == dy.rows && dx.cols == gate.cols));
  Gated job(*k_, dy.dtype, gate, up, PackDirection::kBackward, fp8, nullptr);
  std::vector<RowItem> items =
      job.items(dy.rows, groups(offsets, gate.experts(), dy.rows), RowSplit::kWhole);
  run_items(items.size(), 4 * dy.rows * gate.rows * gate.cols,
            [&](size_t i) { job.backward(items[i], dy, g, u, dx, accum); });
}

void CpuDevice::gated_matmul_dw(const Tensor& dg, const Tensor& du, const Tensor& x,
                                const Tensor& offsets, std::span<const Tensor> dgate,
                                std::span<const Tensor> dup, Accum accum, bool fp8) {
  CHECK(dgate.size() == dup.size());
  std::span<const int32_t> o = groups(offsets, static_cast<int64_t>(dgate.size()), x.rows);
  std::vector<TransposedProduct> products;
  for (size_t e = 0; e < dgate.size(); ++e) {
    int64_t begin = o.empty() ? 0 : o[e], n = o.empty() ? x.rows : o[e + 1] - begin;
    products.push_back({dg.row_range(begin, n), x.row_range(begin, n), dgate[e], accum,
                        du.row_range(begin, n), dup[e]});
  }
  multiply_transposed(*k_, operands_for(*k_, x.dtype, false), products, fp8);
}

}  // namespace wels
