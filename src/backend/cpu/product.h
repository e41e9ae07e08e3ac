// The two shapes of matrix product of training and inference, over the micro-kernels of
// isa/gemm_kernels.h.
//
//   multiply_rows        y = x · B        rows are independent: forward, and the gradient of x
//   multiply_transposed  dw = dyᵀ · x     a sum over all rows: the gradient of w
//
// Work items are handed out to the threads one by one; no item boundary and no thread count enters
// the order of a sum.
#pragma once
#include <span>

#include "backend/cpu/weight_pack.h"

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

struct RowProduct {
  Tensor x;               // [n, k] f32 or bf16
  const PackedWeight* b;  // one matrix per group
  std::span<const int32_t>
      offsets;  // rows [offsets[e], offsets[e + 1]) belong to matrix e; empty: all to matrix 0
  const float* bias = nullptr;  // [b->n]
  Tensor y;                     // [n, b->n] f32 or bf16
  Accum accum = Accum::kSet;
  bool fp8 = false;
};
void multiply_rows(const Kernels& k, const GemmOperands& ops, const RowProduct& p);

struct TransposedProduct {
  Tensor dy, x, dw;  // [n, out] · [n, in] · f32 [out, in]
  Accum accum;
};
void multiply_transposed(const Kernels& k, const GemmOperands& ops,
                         std::span<const TransposedProduct> products, bool fp8);

}  // namespace wels
