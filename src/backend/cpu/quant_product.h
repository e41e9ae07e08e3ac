// Forward products with quantised weights: rows of x are rounded to int8 once per call, and the
// work is split over (expert × rows × panels) for the kernels of isa/quant_kernels.h.
#pragma once
#include <span>

#include "backend/cpu/expert_packs.h"
#include "backend/cpu/isa/kernels.h"
#include "tensor/pool.h"
#include "tensor/weight.h"

namespace wels {

// Whether products x · wᵀ go this way: of a block type, and neither in full precision nor FP8.
bool is_quant_product(const Weight& w, bool fp8);

// What the packed weight takes.
int64_t quant_pack_bytes(const Weight& w);
// What rounded rows of x take, of `size` elements.
inline int64_t quant_row_bytes(int64_t rows, int64_t cols) {
  // An odd number of cache lines apart, so that rows do not share the cache's sets.
  return rows * (((cols / 32 * static_cast<int64_t>(sizeof(QuantRecord)) + 63) / 64 | 1) * 64);
}

struct QuantProduct {
  Tensor x;                          // [n, in] f32 or bf16
  std::span<const int32_t> offsets;  // as groups() gives them
  ExpertUse* use = nullptr;          // where not all experts stay packed
};
// y = x · wᵀ + bias. bias: [out] or nullptr · y f32 or bf16.
void multiply_quant(const Kernels& k, Pool& pool, const QuantProduct& p, const Weight& w,
                    const float* bias, const Tensor& y);
// y = silu(g) · u as Device::gated_matmul. g, u: empty if nobody keeps them.
void multiply_quant_gated(const Kernels& k, Pool& pool, const QuantProduct& p, const Weight& gate,
                          const Weight& up, const Tensor& y, const Tensor& g, const Tensor& u);

}  // namespace wels
