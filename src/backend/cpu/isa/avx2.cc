// The kernels for avx2; what they do is in the .inl files, what they are called by is in kernels.h.
#include "backend/cpu/isa/kernels.h"

#include <immintrin.h>

namespace wels {
namespace {
#include "backend/cpu/isa/vec_avx2.inl"
#include "backend/cpu/isa/vec_math.inl"
#include "backend/cpu/isa/gemm.inl"
#include "backend/cpu/isa/block_q8.inl"
#include "backend/cpu/isa/attend.inl"
#include "backend/cpu/isa/row.inl"
#include "backend/cpu/isa/quant.inl"
const Kernels kKernels{"avx2", &kGemm, &kAttend, &kRow, &kQuant, nullptr};
}  // namespace
const Kernels* kernels_avx2() { return &kKernels; }
}  // namespace wels
