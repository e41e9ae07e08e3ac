// Weights in the layout of the matrix kernels, made once per version of the weight and kept in
// Weight::cache.
//
// A product reads its right operand B [k, n] in panels (isa/gemm_kernels.h). The forward product x
// · wᵀ has B = wᵀ (k = in, n = out), the gradient of x has B = w (k = out, n = in): two packs. Each
// exists in f32 or in pairs of bf16, plain or rounded to E4M3 with one scale per 128 × 128 block.
// Whatever dtype the weight is kept in is decoded while packing, except where product_weight keeps
// it. Forward products with quantised weights have a pack of their own, of the same codes.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/expert_packs.h"
#include "backend/cpu/isa/kernels.h"
#include "tensor/weight.h"

namespace wels {

struct PackedWeight {
  std::shared_ptr<void> memory;
  int64_t k = 0, n = 0;
  int64_t panel_bytes = 0, expert_bytes = 0;
  std::shared_ptr<void> scales;  // FP8: f32 [experts][ceil(k / 128)][n]
  PanelType type = PanelType::kUnits;
  std::vector<Tensor> block_scales;    // kE4m3: the weight's own, per expert
  std::shared_ptr<ExpertSlots> slots;  // in place of `memory`, where not all experts stay
  uint64_t version = 0;

  const uint8_t* expert(int64_t e) const {
    if (slots) return static_cast<const uint8_t*>(slots->pack[static_cast<size_t>(e)].get());
    return static_cast<const uint8_t*>(memory.get()) + e * expert_bytes;
  }
  const float* scale(int64_t e, int64_t k_block) const {
    return static_cast<const float*>(scales.get()) + (e * ((k + 127) / 128) + k_block) * n;
  }
};

enum class PackDirection { kForward, kBackward };

// The pack of w, made now if w has moved on since (in parallel; call it outside parallel regions,
// from one thread). pairs: bf16 for vdpbf16ps, else f32. Throws Error where w's dtype cannot be
// decoded.
const PackedWeight& packed_weight(const Kernels& kernels, const Weight& w, PackDirection direction,
                                  bool pairs, bool fp8);

// The pack of a weight of a block type for the int8 kernels, likewise. use: null, or
// where a stack's experts need not all be there: those with rows are.
const PackedWeight& quant_packed_weight(const Kernels& kernels, const Weight& w,
                                        ExpertUse* use = nullptr);

// The forward pack for products: in the bytes that the weight is stored in where the kernels can
// widen them as they go (bf16 and f16 for f32 operands, E4M3 always), else packed_weight. Throws
// Error where an E4M3 code is NaN. use: as of quant_packed_weight.
const PackedWeight& product_weight(const Kernels& kernels, const Weight& w, bool pairs, bool fp8,
                                   ExpertUse* use = nullptr);

// How x · w can read w where it is stored, row by row, in panels' widths; else kUnits: it needs
// packed_weight's backward pack.
PanelType in_place_type(const Kernels& kernels, const Weight& w, bool pairs);

// Bytes of packed_weight's (backward) or product_weight's (forward) pack, its scales included.
// Reads the shape and type of w only.
int64_t pack_bytes(const Kernels& kernels, const Weight& w, PackDirection direction, bool pairs,
                   bool fp8);

// Rows [begin, begin + n) of matrix e as f32: the master itself where it is f32, else decoded into
// `scratch` [n, cols].
Tensor weight_rows_f32(const Weight& w, int64_t e, int64_t begin, int64_t n, float* scratch);

// 64-byte aligned memory of the calling thread, kept for its life. Each slot is one buffer: what it
// held is gone after a later call with the same slot.
enum class Scratch { kA, kB, kC, kCodes, kScales, kOther, kCount };
void* thread_scratch(Scratch slot, int64_t bytes);
template <class T>
T* thread_scratch(Scratch slot, int64_t count) {
  return static_cast<T*>(thread_scratch(slot, count * static_cast<int64_t>(sizeof(T))));
}

}  // namespace wels
