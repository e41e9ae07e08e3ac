// What the CPU device keeps beside the tensors of its calls, for plans of a run's memory
// (train/memory_plan.h). Packs are exact; work space is an upper bound, told from the block sizes
// of the files that take it. train/memory_plan_test.cc holds both against a real step.
#include <algorithm>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/product.h"
#include "backend/cpu/quant_product.h"
#include "base/threads.h"

namespace wels {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A thread's scratch in the products: both operands of a dw tile of 576 × 384 with 256 steps
// (product.cc), a widened or rounded chunk of up to 192 rows within 256 KB, f32 sums of as many
// rows of a fused product (gated.cc), the head's tile of 192 × 512 logits; with FP8 128 rows of a
// weight while they are packed, and codes and f32 sums of a chunk.
int64_t product_scratch(const WorkShape& s) {
  int64_t bytes = (576 + 384) * 257 * 4 + (256 << 10) + 192 * s.widest * 4 + (384 << 10);
  if (s.fp8) bytes += 128 * s.widest * 4 + std::max<int64_t>(256 << 10, 24 * s.widest * 4);
  return bytes;
}

// A thread's work space in attention's backward: per tile of 64 query columns q and dy twice and
// dq, and what one tile of keys needs (attend_backward.cc). Its forward takes less.
int64_t attend_scratch(const WorkShape& s) {
  const AttendParams& p = s.attend;
  if (p.kv_heads == 0) return 0;
  int64_t dk = ceil_div(p.dk + p.dr, 16) * 16, dv = ceil_div(p.dv, 16) * 16;
  int64_t tiles = ceil_div(s.longest_segment * (p.heads / p.kv_heads), 64);
  int64_t floats = tiles * 64 * (3 * dk + 2 * dv + 2) + 64 * (4 * dk + 4 * dv) + 5 * 64 * 64;
  return 4 * (floats + s.longest_segment * p.dr);
}

// The gradient of MLA's shared key, head by head, where a segment's heads go to several threads.
int64_t attend_shared(const WorkShape& s) {
  if (s.attend_segments >= 8 * thread_count()) return 0;
  return 4 * s.attend_rows * s.attend.kv_heads * s.attend.dr;
}

}  // namespace

int64_t CpuDevice::packed_bytes(const Weight& w, DType dtype, bool fp8, PackUse use) const {
  if (use == PackUse::kForward && is_quant_product(w, fp8)) return quant_pack_bytes(w);
  bool pairs = is_pairs(*k_, operands_for(*k_, dtype, w.full_precision));
  if (use == PackUse::kQuery && in_place_type(*k_, w, pairs) != PanelType::kUnits) return 0;
  bool backward = use == PackUse::kBackward || use == PackUse::kQuery;
  return pack_bytes(*k_, w, backward ? PackDirection::kBackward : PackDirection::kForward, pairs,
                    fp8);
}

int64_t CpuDevice::work_bytes(const WorkShape& s) const {
  DType element = element_type(*k_, operands_for(*k_, s.dtype, false));
  return thread_count() * (product_scratch(s) + attend_scratch(s)) +
         Pool::size_class(attend_shared(s)) +
         Pool::size_class(quant_row_bytes(s.quant_rows, s.quant_cols)) +
         head_gradient_bytes(s.head_rows, s.head_vocab, s.head_cols, element) + 4 * s.gemm_right;
}

}  // namespace wels
