// CpuDevice: the fast ops on x86-64. An op without a fast kernel here is RefDevice's plain loop.
// One .cc file per family of ops; kernels come from the table of the best instruction set
// (isa/kernels.h).
#pragma once
#include <memory>
#include <string>

#include "backend/cpu/expert_packs.h"
#include "backend/ref/ref_device.h"
#include "tensor/pool.h"

namespace wels {

struct Kernels;

class CpuDevice : public RefDevice<float> {
 public:
  // isa: "avx2", "avx512", "avx512_bf16" or "" for the best this CPU has (WELS_ISA in the
  // environment overrides ""). Throws Error where the CPU lacks it.
  explicit CpuDevice(const std::string& isa = "");
  ~CpuDevice() override;
  std::string name() const override;
  int64_t packed_bytes(const Weight& w, DType dtype, bool fp8, PackUse use) const override;
  int64_t work_bytes(const WorkShape& largest) const override;

  // Of each stack of experts only this share stays packed for forward products, those that are used
  // most (expert_packs.h); what is read otherwise is where the weights lie. 1: all of them.
  void set_expert_share(double share) { expert_share_ = share; }
  const ExpertCounts& expert_counts() const { return expert_counts_; }

  // --- matrix products (matmul.cc, gated.cc, head.cc) ---
  void matmul(const Tensor& x, const Weight& w, const Weight* bias, Tensor y, bool fp8) override;
  void matmul_dx(const Tensor& dy, const Weight& w, Tensor dx, Accum accum, bool fp8) override;
  void matmul_dw(const Tensor& dy, const Tensor& x, Tensor dw, Accum accum, bool fp8) override;
  void grouped_matmul(const Tensor& x, const Weight& w, const Tensor& offsets, Tensor y,
                      bool fp8) override;
  void grouped_matmul_dx(const Tensor& dy, const Weight& w, const Tensor& offsets, Tensor dx,
                         Accum accum, bool fp8) override;
  void grouped_matmul_dw(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                         std::span<const Tensor> dw, Accum accum, bool fp8) override;
  void gated_matmul(const Tensor& x, const Weight& gate, const Weight& up, const Tensor& offsets,
                    Tensor y, Tensor g, Tensor u, bool fp8) override;
  void gated_matmul_dx(const Tensor& dy, const Weight& gate, const Weight& up,
                       const Tensor& offsets, Tensor g, Tensor u, Tensor dx, Accum accum,
                       bool fp8) override;
  void swiglu(const Tensor& g, const Tensor& u, Tensor y) override;
  void gated_matmul_dw(const Tensor& dg, const Tensor& du, const Tensor& x, const Tensor& offsets,
                       std::span<const Tensor> dgate, std::span<const Tensor> dup, Accum accum,
                       bool fp8) override;
  void column_sum(const Tensor& dy, Tensor db, Accum accum) override;
  void gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, float alpha,
            float beta, Tensor c) override;
  void token_logp(const Tensor& h, const Weight& head, const Targets& target, Tensor logp,
                  Tensor lse) override;
  void token_logp_backward(const Tensor& h, const Weight& head, const Targets& target,
                           const Tensor& lse, const Tensor& dlogp, Tensor dh, Accum accum,
                           Tensor dhead, Accum dhead_accum) override;
  void token_logp_and_gradient(const Tensor& h, const Weight& head, const Targets& target,
                               const Tensor& dlogp, Tensor logp, Tensor dh, Tensor dhead,
                               Accum dhead_accum) override;
  // head_kl.cc
  void top_tokens(const Tensor& h, const Weight& head, double temperature,
                  const TopTokens& top) override;
  void token_kl(const Tensor& h, const Weight& head, const TopTokens& teacher, const KlParams& p,
                Tensor kl, Tensor slope) override;
  void token_kl_backward(const Tensor& h, const Weight& head, const TopTokens& teacher,
                         const KlParams& p, const Tensor& slope, const Tensor& dkl, Tensor dh,
                         Accum accum, Tensor dhead, Accum dhead_accum) override;
  DType product_dtype(DType dtype) const override;
  double measure_peak_flops(DType dtype) override;

  // --- attention (attend.cc, attend_backward.cc, attend_absorb.cc) ---
  void attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
              std::span<const AttendSegment> segments, const AttendParams& p, Tensor y,
              Tensor lse) override;
  void attend_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
                       std::span<const AttendSegment> segments, const AttendParams& p,
                       const Tensor& y, const Tensor& lse, const Tensor& dy, Tensor dq, Tensor dk,
                       Tensor dv, Tensor dshared) override;
  void attend_cached(const Tensor& q, const Tensor& pool, int page_rows,
                     std::span<const CachedSegment> segments, const AttendParams& p, int k_col,
                     int v_col, Tensor y) override;
  void absorb_query(const Tensor& q, const Weight& kv_b, int heads, int dn, int dr, int dv,
                    Tensor y) override;
  void absorb_output(const Tensor& x, const Weight& kv_b, int heads, int dn, int dv,
                     Tensor y) override;

  // --- rows: norms, rope, gathers, routing, optimiser (rows.cc, moe.cc, optimizer.cc)
  // ---
  void copy(const Tensor& src, Tensor dst, Accum accum) override;
  void zero(Tensor t) override;
  void gather_rows(const Tensor& x, const Tensor& index, Tensor y) override;
  void scatter_rows(const Tensor& x, const Tensor& index, Tensor y) override;
  void gather_sum(const Tensor& x, const Tensor& index, Tensor y, Accum accum) override;
  void embed(const Tensor& ids, const Weight& w, Tensor y) override;
  void embed_backward(const Tensor& ids, const Tensor& dy, Tensor dw) override;
  void rms_norm(const Tensor& x, const Weight& gain, float eps, Tensor y, Tensor inv_rms) override;
  void rms_norm_backward(const Tensor& x, const Weight& gain, const Tensor& inv_rms,
                         const Tensor& dy, Tensor dx, Accum accum, Tensor dgain) override;
  void rope(const Tensor& x, const Tensor& pos, const Tensor& cos, const Tensor& sin,
            const RopeParams& p, Tensor y, Accum accum) override;
  void add(const Tensor& a, const Tensor& b, Tensor y) override;
  void route(const Tensor& logits, const Tensor& bias, const Tensor& given, const RouteParams& p,
             Tensor expert, Tensor weight, Tensor load) override;
  void route_backward(const Tensor& logits, const Tensor& expert, const Tensor& weight,
                      const Tensor& dweight, const RouteParams& p, Tensor dlogits) override;
  double balance_loss(const Tensor& logits, std::span<const AttendSegment> segments,
                      const RouteParams& p) override;
  void balance_loss_backward(const Tensor& logits, std::span<const AttendSegment> segments,
                             const RouteParams& p, float factor, Tensor dlogits) override;
  void dispatch(const Tensor& expert, int experts, Tensor offsets, Tensor token_of,
                Tensor slot_of) override;
  void combine(const Tensor& rows, const Tensor& slot_of, const Tensor& weight, const Tensor& extra,
               Tensor y) override;
  void combine_backward(const Tensor& rows, const Tensor& slot_of, const Tensor& weight,
                        const Tensor& dy, Tensor drows, Tensor dweight) override;
  double sum_squares(const Tensor& t) override;
  void adamw(Tensor w, const Tensor& grad, Tensor m, Tensor v, const AdamWParams& p) override;
  void axpby(float a, const Tensor& x, float b, Tensor y) override;

 private:
  const Kernels* k_;
  Pool pool_;  // work space of the ops that need more than a thread's scratch
  double expert_share_ = 1;
  ExpertCounts expert_counts_;
};

}  // namespace wels
