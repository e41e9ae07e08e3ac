// CpuDevice: the fast ops on x86-64. An op without a fast kernel here is RefDevice's plain loop.
// One .cc file per family of ops; kernels come from the table of the best instruction set (isa/kernels.h).
#pragma once
#include <memory>
#include <string>

#include "backend/ref/ref_device.h"
#include "tensor/pool.h"

namespace wels {

struct Kernels;

class CpuDevice : public RefDevice<float> {
 public:
  // isa: "avx2", "avx512", "avx512_bf16" or "" for the best this CPU has (WELS_ISA in the environment overrides "").
  // Throws Error where the CPU lacks it.
  explicit CpuDevice(const std::string& isa = "");
  ~CpuDevice() override;
  std::string name() const override;

  // --- matrix products (matmul.cc, head.cc) ---
  void matmul(const Tensor& x, const Weight& w, const Weight* bias, Tensor y, bool fp8) override;
  void matmul_dx(const Tensor& dy, const Weight& w, Tensor dx, Accum accum, bool fp8) override;
  void matmul_dw(const Tensor& dy, const Tensor& x, Tensor dw, Accum accum, bool fp8) override;
  void grouped_matmul(const Tensor& x, const Weight& w, const Tensor& offsets, Tensor y, bool fp8) override;
  void grouped_matmul_dx(const Tensor& dy, const Weight& w, const Tensor& offsets, Tensor dx, Accum accum,
                         bool fp8) override;
  void grouped_matmul_dw(const Tensor& dy, const Tensor& x, const Tensor& offsets, std::span<const Tensor> dw,
                         Accum accum, bool fp8) override;
  void column_sum(const Tensor& dy, Tensor db, Accum accum) override;
  void gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, float alpha, float beta,
            Tensor c) override;
  void token_logp(const Tensor& h, const Weight& head, const Tensor& target, Tensor logp, Tensor lse) override;
  void token_logp_backward(const Tensor& h, const Weight& head, const Tensor& target, const Tensor& lse,
                           const Tensor& dlogp, Tensor dh, Accum accum, Tensor dhead, Accum dhead_accum) override;
  double measure_peak_flops(DType dtype) override;

  // --- attention (attend.cc, attend_backward.cc) ---
  void attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
              std::span<const AttendSegment> segments, const AttendParams& p, Tensor y, Tensor lse) override;
  void attend_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
                       std::span<const AttendSegment> segments, const AttendParams& p, const Tensor& y,
                       const Tensor& lse, const Tensor& dy, Tensor dq, Tensor dk, Tensor dv, Tensor dshared) override;
  void attend_cached(const Tensor& q, const Tensor& pool, int page_rows, std::span<const CachedSegment> segments,
                     const AttendParams& p, int k_col, int v_col, Tensor y) override;

  // --- rows: norms, rope, activation, gathers, routing, optimiser (rows.cc, moe.cc, optimizer.cc) ---

 private:
  const Kernels* k_;
  Pool pool_;  // work space of the ops that need more than a thread's scratch
};

}  // namespace wels
