// The small products around absorbed MLA (V3 eq. 1-11 rearranged): per head, queries into the
// latent space and its weighted sum out of it. q · W_UK,i sums over the output rows of kv_b, as dx
// = dy · w does, and x · W_UV,iᵀ makes some of its output columns, as y = x · wᵀ does; so they read
// the packs of kv_b that matmul and its gradient keep (weight_pack.h). A bf16 or f16 kv_b that is
// multiplied in f32 is read in half the bytes: W_UK in place, since its rows lie as q · W_UK needs
// them, W_UV in matmul's narrow panels.
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/product.h"
#include "base/threads.h"

namespace wels {
namespace {

constexpr int64_t kRows = 96;  // of a work item

// fn(head, first row, rows) for all heads and blocks of n rows; in one thread where the weight's
// part is small.
template <class Fn>
void heads_and_rows(int heads, int64_t n, int64_t weight_size, Fn&& fn) {
  const int64_t blocks = (n + kRows - 1) / kRows, items = heads * blocks;
  auto item = [&](int64_t i) {
    const int64_t begin = i % blocks * kRows;
    fn(i / blocks, begin, std::min(kRows, n - begin));
  };
  if (n * weight_size < 200'000) {
    for (int64_t i = 0; i < items; ++i) item(i);
  } else {
    // A few heads per call, so that a decoded row does not pay for many small hand-outs.
    const int64_t group = std::max<int64_t>(1, items / (8 * thread_count()));
    parallel_tasks((items + group - 1) / group, [&](int64_t g) {
      for (int64_t i = g * group; i < std::min(items, (g + 1) * group); ++i) item(i);
    });
  }
}

// y [n, r] = q [n, dn] (f32) · rows [first, first + dn) of kv_b.
void multiply_in_place(const Kernels& k, PanelType type, const Tensor& q, const Tensor& kv_b,
                       int64_t first, const Tensor& y) {
  GemmBlock g = left_block(q, q.cols);
  g.b = kv_b.row_raw(first);
  g.b_panel = row_bytes(kv_b.dtype, k.gemm->panel);
  g.n = kv_b.cols;
  set_result(g, y, Accum::kSet);
  k.gemm->f32->multiply_narrow(g, {type, row_bytes(kv_b.dtype, kv_b.stride), nullptr, 0, first});
}

}  // namespace

void CpuDevice::absorb_query(const Tensor& q, const Weight& kv_b, int heads, int dn, int dr, int dv,
                             Tensor y) {
  if (q.dtype != DType::kBF16 && q.dtype != DType::kF32) {
    return RefDevice<float>::absorb_query(q, kv_b, heads, dn, dr, dv, y);
  }
  if (q.rows == 0) return;
  const int64_t r = kv_b.cols, of_head = dn + dv;
  CHECK(kv_b.rows == heads * of_head);
  CHECK(y.cols == heads * (r + dr));
  // A head's rows must start at a whole step of the pack: with pairs, at an even row.
  const GemmOperands& ops = operands_for(*k_, q.dtype, kv_b.full_precision || of_head % 2 != 0);
  const bool pairs = is_pairs(*k_, ops);
  const PanelType stored = in_place_type(*k_, kv_b, pairs);
  const PackedWeight* pack = stored == PanelType::kUnits
                                 ? &packed_weight(*k_, kv_b, PackDirection::kBackward, pairs, false)
                                 : nullptr;
  heads_and_rows(heads, q.rows, kv_b.size(), [&](int64_t h, int64_t begin, int64_t n) {
    const Tensor from = q.row_range(begin, n).col_range(h * (dn + dr), dn + dr);
    const Tensor to = y.row_range(begin, n).col_range(h * (r + dr), r + dr);
    const Tensor left = left_operand(*k_, ops, from.col_range(0, dn));
    if (!pack) {
      multiply_in_place(*k_, stored, left, kv_b.value[0], h * of_head, to.col_range(0, r));
    } else {
      GemmBlock g = left_block(left, dn);
      g.b = pack->expert(0) + h * of_head / (pairs ? 2 : 1) * k_->gemm->panel * 4;
      g.b_panel = pack->panel_bytes;
      g.n = r;
      set_result(g, to.col_range(0, r), Accum::kSet);
      ops.multiply(g);
    }
    const auto tail_bytes = static_cast<size_t>(row_bytes(q.dtype, dr));
    for (int64_t i = 0; dr > 0 && i < n; ++i) {
      std::memcpy(to.col_range(r, dr).row_raw(i), from.col_range(dn, dr).row_raw(i), tail_bytes);
    }
  });
}

void CpuDevice::absorb_output(const Tensor& x, const Weight& kv_b, int heads, int dn, int dv,
                              Tensor y) {
  // A head's columns must start at a whole vector of a panel.
  const bool aligned = dn % 16 == 0 && dv % 16 == 0;
  if (!aligned || (x.dtype != DType::kBF16 && x.dtype != DType::kF32)) {
    return RefDevice<float>::absorb_output(x, kv_b, heads, dn, dv, y);
  }
  if (x.rows == 0) return;
  const int64_t r = kv_b.cols, of_head = dn + dv, panel = k_->gemm->panel;
  CHECK(kv_b.rows == heads * of_head);
  CHECK(x.cols == heads * r);
  const GemmOperands& ops = operands_for(*k_, x.dtype, kv_b.full_precision);
  const PackedWeight& pack = product_weight(*k_, kv_b, is_pairs(*k_, ops), false);
  const bool narrow = pack.type != PanelType::kUnits;
  heads_and_rows(heads, x.rows, kv_b.size(), [&](int64_t h, int64_t begin, int64_t n) {
    const Tensor from = left_operand(*k_, ops, x.row_range(begin, n).col_range(h * r, r));
    const Tensor to = y.row_range(begin, n).col_range(h * dv, dv);
    if (narrow) {  // from the panel on in which the head's columns begin
      const int64_t column = h * of_head + dn, before = column % panel;
      Tensor wide = to;
      if (before > 0)
        wide = Tensor(thread_scratch<float>(Scratch::kOther, n * (before + dv)), y.dtype, n,
                      before + dv);
      multiply_left(*k_, ops, {from}, {pack, 0, column - before}, wide, Accum::kSet);
      for (int64_t i = 0; before > 0 && i < n; ++i) {
        std::memcpy(to.row_raw(i), wide.col_range(before, dv).row_raw(i),
                    static_cast<size_t>(row_bytes(y.dtype, dv)));
      }
      return;
    }
    for (int64_t c = 0; c < dv;) {  // panel by panel
      const int64_t column = h * of_head + dn + c, within = column % panel,
                    width = std::min(panel - within, dv - c);
      GemmBlock g = left_block(from, r);
      g.b = pack.expert(0) + column / panel * pack.panel_bytes + within * 4;
      g.b_panel = pack.panel_bytes;
      g.n = width;
      set_result(g, to.col_range(c, width), Accum::kSet);
      ops.multiply(g);
      c += width;
    }
  });
}

}  // namespace wels
