// The kernels for avx512_bf16; what they do is in the .inl files, what they are called by is in
// kernels.h.
#include "backend/cpu/isa/kernels.h"

// GCC 12 warns about its own intrinsics' undefined operands.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

namespace wels {
namespace {
#include "backend/cpu/isa/vec_avx512.inl"
#include "backend/cpu/isa/vec_math.inl"
#include "backend/cpu/isa/gemm.inl"
#include "backend/cpu/isa/block_q8.inl"
#include "backend/cpu/isa/attend.inl"
#include "backend/cpu/isa/row.inl"
#include "backend/cpu/isa/quant.inl"
const Kernels kKernels{"avx512_bf16", &kGemm, &kAttend, &kRow, &kQuant, nullptr};
}  // namespace
const Kernels* kernels_avx512_bf16() { return &kKernels; }
}  // namespace wels
