// The CPU device's choice of instruction set.
#include "backend/cpu/cpu_device.h"

#include <cpuid.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "backend/cpu/isa/kernels.h"
#include "base/error.h"
#include "base/threads.h"

namespace wels {
namespace {

struct Isa {
  const char* name;
  bool supported;  // by this CPU and its operating system
  const Kernels* (*kernels)();
};

const Kernels* kernels_avx512_vnni() {
  static const Kernels kernels = [] {
    Kernels k = *kernels_avx512();
    k.name = "avx512_vnni";
    k.quant = int8_kernels_avx512_vnni()->quant;
    k.attend_int8 = int8_kernels_avx512_vnni()->attend;
    return k;
  }();
  return &kernels;
}

const Kernels* kernels_avx512_bf16_vnni() {
  static const Kernels kernels = [] {
    Kernels k = *kernels_avx512_bf16();
    k.attend_int8 = int8_kernels_avx512_vnni()->attend;
    return k;
  }();
  return &kernels;
}

// Clang 14's __builtin_cpu_supports does not know it. With AVX2's registers the system keeps its
// own.
bool has_f16c() {
  unsigned a, b, c = 0, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

const Kernels* choose(std::string wanted) {
  const char* asked_by = "--device";
  bool none = false;
  if (wanted.empty()) {
    asked_by = "WELS_ISA";
    if (const char* forced = std::getenv(asked_by)) wanted = forced;
    none = wanted == "none";  // as on a CPU that has none of them, for tests
    if (none) wanted.clear();
  }
  __builtin_cpu_init();
  bool avx2 =
      !none && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  bool bf16 = vnni && __builtin_cpu_supports("avx512bf16");
  const Isa with_bf16{"avx512_bf16", bf16, kernels_avx512_bf16_vnni},
      with_vnni{"avx512_vnni", vnni, kernels_avx512_vnni};
  // Intel's cores start a vdpbf16ps every other cycle and two f32 products in each: widened
  // operands are twice as fast (177 against 351 GFLOP/s, two threads of a Sapphire Rapids
  // generation Xeon, 2026-11-28). AMD's (Zen 4 and 5) take bf16 pairs at twice the rate of f32.
  bool intel = __builtin_cpu_is("intel");
  const Isa best_first[] = {intel ? with_vnni : with_bf16,
                            intel ? with_bf16 : with_vnni,
                            {"avx512", avx512, kernels_avx512},
                            {"avx2", avx2, kernels_avx2}};
  std::string have;
  for (const Isa& isa : best_first) {
    if (isa.supported && (wanted.empty() || wanted == isa.name)) return isa.kernels();
    if (isa.supported) have += (have.empty() ? "" : ", ") + std::string(isa.name);
  }
  if (wanted.empty()) throw Error("cpu", "this CPU has no AVX2 with FMA", "use --device ref");
  throw Error(asked_by, "\"" + wanted + "\" is not an instruction set that this CPU has",
              "use " + have);
}

}  // namespace

CpuDevice::CpuDevice(const std::string& isa) : k_(choose(isa)) {}
CpuDevice::~CpuDevice() = default;

std::string CpuDevice::name() const {
  return "cpu (" + std::string(k_->name) + ", " + std::to_string(thread_count()) + " threads)";
}

DType CpuDevice::product_dtype(DType dtype) const {
  return dtype == DType::kBF16 && k_->gemm->bf16 ? DType::kBF16 : DType::kF32;
}

double CpuDevice::measure_peak_flops(DType dtype) {
  bool pairs = dtype == DType::kBF16, int8 = dtype == DType::kI8;
  if (!pairs && !int8 && dtype != DType::kF32) return 0;
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int repeat = 0; repeat < 25;
       ++repeat) {  // 2 ms each, and the best of them: others may be using the machine
    double done = 0;
    auto start = Clock::now();
#pragma omp parallel reduction(+ : done)
    {
      do done += int8 ? k_->quant->peak(2'000) : k_->gemm->peak(2'000, pairs);
      while (Clock::now() - start < std::chrono::milliseconds(2));
    }
    best = std::max(best, done / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace wels
