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
#include "backend/cpu/isa/attend_ahead.inl"
#include "backend/cpu/isa/attend_int8.inl"
const Int8Kernels kInt8 = {&kQuant, &kAttendInt8};
}  // namespace
const Int8Kernels* int8_kernels_avx512_vnni() { return &kInt8; }
}  // namespace wels
