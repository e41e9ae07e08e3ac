// The ISA boundary: plain function pointers, one table per instruction set, picked once by CPUID
// (cpu_device.cc).
//
// An ISA file (avx2.cc, avx512.cc, avx512_vnni.cc, avx512_bf16.cc) is compiled with its
// instruction-set flags, so
// it may include only <immintrin.h>, <cstdint> and the project's .inl and *_kernels.h files (no std
// templates, no inline functions with external linkage), keeps everything in an anonymous namespace
// and exports one function. tools/lint.sh checks with nm.
#pragma once
#include "backend/cpu/isa/attend_kernels.h"
#include "backend/cpu/isa/gemm_kernels.h"
#include "backend/cpu/isa/quant_kernels.h"
#include "backend/cpu/isa/row_kernels.h"

namespace wels {

struct Kernels {
  const char* name;
  const GemmKernels* gemm;
  const AttendKernels* attend;
  const RowKernels* rows;
  const QuantKernels* quant;
  const AttendInt8* attend_int8;  // null: this one is no faster in int8
};

const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
struct Int8Kernels {
  const QuantKernels* quant;
  const AttendInt8* attend;
};
const Int8Kernels* int8_kernels_avx512_vnni();
const Kernels* kernels_avx512_bf16();

}  // namespace wels
