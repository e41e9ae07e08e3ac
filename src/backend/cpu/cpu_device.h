// CpuDevice: the fast ops on x86-64. An op without a fast kernel here is RefDevice's plain loop.
// One .cc file per family of ops; kernels come from the table of the best instruction set (isa/kernels.h).
#pragma once
#include <memory>
#include <string>

#include "backend/ref/ref_device.h"

namespace wels {

struct Kernels;

class CpuDevice : public RefDevice<float> {
 public:
  // isa: "avx2", "avx512", "avx512_bf16" or "" for the best this CPU has (WELS_ISA in the environment overrides "").
  // Throws Error where the CPU lacks it.
  explicit CpuDevice(const std::string& isa = "");
  ~CpuDevice() override;
  std::string name() const override;

  // --- matrix products (matmul.cc) ---

  // --- attention (attend.cc) ---

  // --- rows: norms, rope, activation, gathers, routing, optimiser (rows.cc, moe.cc, optimizer.cc) ---

 private:
  const Kernels* k_;
};

}  // namespace wels
