// The two shapes of matrix product of training and inference, over the micro-kernels of
// isa/gemm_kernels.h.
//
//   multiply_rows        y = x · B        rows are independent: forward, and the gradient of x
//   multiply_transposed  dw = dyᵀ · x     a sum over all rows: the gradient of w
//
// Work items are handed out to the threads one by one; no item boundary and no thread count enters
// the order of a sum.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "backend/cpu/row_type.h"
#include "backend/cpu/weight_pack.h"
#include "base/threads.h"

namespace wels {

// The kernels' operand type for activations of this dtype: pairs of bf16 where the CPU multiplies
// those, else f32.
inline const GemmOperands& operands_for(const Kernels& k, DType activation, bool full_precision) {
  bool pairs = activation == DType::kBF16 && k.gemm->bf16 && !full_precision;
  return pairs ? *k.gemm->bf16 : *k.gemm->f32;
}
inline bool is_pairs(const Kernels& k, const GemmOperands& ops) { return &ops == k.gemm->bf16; }
inline DType element_type(const Kernels& k, const GemmOperands& ops) {
  return is_pairs(k, ops) ? DType::kBF16 : DType::kF32;
}

// x as the left operand of `ops`: itself, or widened to f32 in scratch (slot kA).
Tensor left_operand(const Kernels& k, const GemmOperands& ops, const Tensor& x);

// A block with x (of ops' element type) as A and steps, half_step set for a contraction over
// `depth` columns of it.
GemmBlock left_block(const Tensor& x, int64_t depth);
// c as the block's result.
void set_result(GemmBlock& g, const Tensor& c, Accum accum);

// Where the rows of each matrix begin: [offsets[e], offsets[e + 1]) belong to matrix e. Without
// offsets there must be one matrix, and the result is empty.
std::span<const int32_t> groups(const Tensor& offsets, int64_t experts, int64_t rows);

// A block of the result of a product of rows: the unit of work.
struct RowItem {
  int64_t expert, row, rows, col, cols;
};
struct RowSplit {
  int64_t rows, depth, cols, element_bytes;  // of the product x [rows, depth] · B [depth, cols]
  std::span<const int32_t> offsets;
  enum Columns { kSplit, kWhole } columns = kSplit;
  int64_t panel = 0;  // columns are split at multiples of it; 0: the f32 and bf16 kernels'
  int64_t part = 0;   // of the depth, that is worked on at a time (0: all of it)
};
// Row chunks whose part of x takes up to half of the L2 cache, all of about one size. Where they
// are few for the threads, columns are split too, or (kWhole) chunks are made smaller. Each chunk
// reads the whole weight, and widens it where it is stored in fewer bytes.
std::vector<RowItem> row_items(const Kernels& k, const RowSplit& s);
// The part of the depth that a product with b works on at a time.
int64_t depth_part(const PackedWeight& b, bool pairs);

inline constexpr int64_t kSerialFlops =
    400'000;  // below it a parallel region costs more than it gains

// Calls fn(i) for i in [0, n), which cost `flops` together.
template <class Fn>
void run_items(size_t n, int64_t flops, Fn&& fn, Order order = Order::kInTurn) {
  if (flops < kSerialFlops) {
    for (size_t i = 0; i < n; ++i) fn(i);
  } else {
    parallel_tasks(
        static_cast<int64_t>(n), [&](int64_t i) { fn(static_cast<size_t>(i)); }, order);
  }
}
// Few rows: what a product takes is the time to read its weights, which a thread does from front to
// back.
inline constexpr int64_t kReadingRows = 4;
inline Order order_of(const std::vector<RowItem>& items) {
  bool reading = !items.empty() && items[0].rows <= kReadingRows;
  return reading ? Order::kNeighbours : Order::kInTurn;
}

// The item that a thread takes up after item i, as far as can be told before; its weights are asked
// for early. Null at the end, and of few rows, whose kernels ask for nothing.
inline const RowItem* item_after(const std::vector<RowItem>& items, size_t i) {
  if (order_of(items) == Order::kNeighbours) return nullptr;
  const size_t next = i + static_cast<size_t>(thread_count());
  return next < items.size() ? &items[next] : nullptr;
}

// Columns of g and u that are joined while still in L1 or L2, whole panels; of few rows, which are
// small anyway, all, so that each weight is read in one piece.
inline int64_t strip_of(const RowItem& it, int64_t panel) {
  constexpr int64_t kStrip = 64;
  const int64_t columns = it.rows <= kReadingRows ? it.cols : kStrip;
  return (columns + panel - 1) / panel * panel;
}

// y's block `it` = silu(g) · u, strip by strip of columns: multiply(c, gs, us) sets both products'
// columns [c, c + gs.cols), in g and u where they are kept, else in the thread's scratch (kOther).
template <class Fn>
void join_strips(const Kernels& k, const RowItem& it, int64_t strip, const Tensor& y,
                 const Tensor& g, const Tensor& u, Fn&& multiply) {
  auto* tiles = thread_scratch<float>(Scratch::kOther, 2 * it.rows * strip);
  auto join = k.rows->swiglu[row_type(y)];
  for (int64_t c = it.col; c < it.col + it.cols; c += strip) {
    int64_t n = std::min(strip, it.col + it.cols - c);
    auto place = [&](const Tensor& kept, float* tile) {
      if (kept.empty()) return Tensor(tile, y.dtype, it.rows, n, strip);
      return kept.row_range(it.row, it.rows).col_range(c, n);
    };
    Tensor to = y.row_range(it.row, it.rows).col_range(c, n), gs = place(g, tiles),
           us = place(u, tiles + it.rows * strip);
    multiply(c, gs, us);
    for (int64_t r = 0; r < it.rows; ++r) join(gs.row_raw(r), us.row_raw(r), to.row_raw(r), n);
  }
}

// Rows of x as the left operand of one product or several, in the thread's scratch (kA, kCodes,
// kScales): of ops' element type, or rounded to E4M3 with a scale per row and 128 columns.
struct LeftRows {
  Tensor x;
  const float* scales = nullptr;  // [rows, ceil(cols / 128)], FP8 only
};
LeftRows left_rows(const Kernels& k, const GemmOperands& ops, const Tensor& x, bool fp8);

// The right operand: columns [col, ..) of one matrix (col a multiple of the panel), and what the
// sums start from.
struct RightColumns {
  const PackedWeight& b;
  int64_t expert, col = 0;
  const float* bias = nullptr;    // of column `col`
  Tensor init{};                  // f32, the shape of y; empty: zeros
  const uint8_t* next = nullptr;  // panels that are multiplied by after this, or null

  const uint8_t* panels(const Kernels& k) const {
    return b.expert(expert) + col / k.gemm->panel * b.panel_bytes;
  }
};
// y (+)= init + x · right + bias. FP8: each 128 of the depth is a product of its own, scaled and
// added in f32.
void multiply_left(const Kernels& k, const GemmOperands& ops, const LeftRows& x,
                   const RightColumns& right, const Tensor& y, Accum accum);

struct RowProduct {
  Tensor x;                          // [n, k] f32 or bf16
  const PackedWeight* b;             // one matrix per group
  std::span<const int32_t> offsets;  // as groups() gives them
  const float* bias = nullptr;       // [b->n]
  Tensor y;                          // [n, b->n] f32 or bf16
  Accum accum = Accum::kSet;
  bool fp8 = false;
};
void multiply_rows(const Kernels& k, const GemmOperands& ops, const RowProduct& p);

struct TransposedProduct {
  Tensor dy, x, dw;  // [n, out] · [n, in] · f32 [out, in]
  Accum accum;
  Tensor dy2{}, dw2{};  // another pair with the same x, which is packed once for both; or empty
};
void multiply_transposed(const Kernels& k, const GemmOperands& ops,
                         std::span<const TransposedProduct> products, bool fp8);

// What the head's gradient holds beside its tensors (head.cc): softmax terms of a pass of rows, or,
// for vocabularies of which not even one pass fits, gradients of the logits and sums of dh.
// element: type of the operands.
int64_t head_gradient_bytes(int64_t rows, int64_t vocab, int64_t d, DType element);

}  // namespace wels
