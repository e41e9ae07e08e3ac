// RefDevice: every op in plain loops. It is the specification that other devices are tested
// against, the oracle of gradient checks (in double), and what a device runs where it has nothing
// faster. R is the type of all arithmetic.
//
// Pattern: read the inputs into dense matrices of R, compute, write (round) the outputs. Index
// tensors are used as they are.
#pragma once
#include <cmath>
#include <vector>

#include "backend/device.h"

namespace wels {

// A dense matrix of R.
template <class R>
struct Mat {
  int64_t rows = 0, cols = 0;
  std::vector<R> v;
  Mat() = default;
  Mat(int64_t rows, int64_t cols) : rows(rows), cols(cols), v(static_cast<size_t>(rows * cols)) {}
  R* row(int64_t r) { return v.data() + r * cols; }
  const R* row(int64_t r) const { return v.data() + r * cols; }
};

// Tensors of any floating-point or GGUF block type to R; back to f64, f32, bf16 (rounding to
// nearest even). kAdd adds to what is there before rounding.
template <class R>
Mat<R> read(const Tensor& t);
template <class R>
void write(const Mat<R>& m, Tensor t, Accum accum = Accum::kSet);
// Matrix e of a weight, dequantised (FP8 with its 128 × 128 scales).
template <class R>
Mat<R> read_weight(const Weight& w, int64_t e = 0);

// Rows of x rounded to int8 times a weight of a block type: quant.cc.
template <class R>
Mat<R> quant_product(const Mat<R>& x, const Tensor& w);

// How many rows of `work` multiply-adds each are worth a thread.
inline int64_t rows_per_thread(int64_t work) { return 1 + (int64_t{1} << 18) / (work + 1); }

template <class R>
class RefDevice : public Device {
 public:
  std::string name() const override { return sizeof(R) == 8 ? "ref:double" : "ref"; }

  // rows.cc
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
  void scale(const Tensor& x, float factor, Tensor y, Accum accum) override;
  void column_sum(const Tensor& dy, Tensor db, Accum accum) override;

  // matmul.cc
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
  void gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, float alpha,
            float beta, Tensor c) override;
  void absorb_query(const Tensor& q, const Weight& kv_b, int heads, int dn, int dr, int dv,
                    Tensor y) override;
  void absorb_output(const Tensor& x, const Weight& kv_b, int heads, int dn, int dv,
                     Tensor y) override;

  // attend.cc
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

  // moe.cc
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

  // head.cc
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

  // optimizer.cc
  double sum_squares(const Tensor& t) override;
  void adamw(Tensor w, const Tensor& grad, Tensor m, Tensor v, const AdamWParams& p) override;
  void axpby(float a, const Tensor& x, float b, Tensor y) override;
  DType product_dtype(DType) const override { return DType::kF32; }
  double measure_peak_flops(DType) override { return 0; }
};

}  // namespace wels
