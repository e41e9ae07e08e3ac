// Products in int8 for AVX-512 with VNNI; the other kernels are those of avx512.cc.
// What they do is in the .inl files, what they are called by is in kernels.h.
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
#include "backend/cpu/isa/quant.inl"
#include "backend/cpu/isa/attend_int8.inl"
}  // namespace
const QuantKernels* quant_kernels_avx512_vnni() { return &kQuant; }
const AttendInt8* attend_int8_avx512_vnni() { return &kAttendInt8; }
}  // namespace wels
