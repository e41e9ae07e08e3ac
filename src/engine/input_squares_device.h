// InputSquaresDevice: a device that computes as another does, and sums the squares of every input
// column of every matrix product on the way. How much a column matters to a layer's output is the
// mean square of what arrives there: E|Δw · x|² ≈ Σ Δw_j² E[x_j²].
#pragma once
#include <map>
#include <vector>

#include "backend/device.h"

namespace wels {

class InputSquaresDevice : public Device {
 public:
  explicit InputSquaresDevice(Device& of) : of_(of) {}  // which must outlive this object

  // Of one weight: sums over rows, for each expert one after another.
  struct Squares {
    std::vector<double> sums;   // [experts · cols]
    std::vector<int64_t> rows;  // [experts]
  };
  // nullptr: no product with it yet.
  const Squares* find(const Weight& w) const;
  // Adds the squares of x's columns to `sums`. x: f32 or bf16.
  void add_squares(const Tensor& x, double* sums);

  // Products.
  void matmul(const Tensor& x, const Weight& w, const Weight* bias, Tensor y, bool fp8) override {
    note(x, w, nullptr);
    of_.matmul(x, w, bias, y, fp8);
  }
  void grouped_matmul(const Tensor& x, const Weight& w, const Tensor& offsets, Tensor y,
                      bool fp8) override {
    note(x, w, &offsets);
    of_.grouped_matmul(x, w, offsets, y, fp8);
  }
  void gated_matmul(const Tensor& x, const Weight& gate, const Weight& up, const Tensor& offsets,
                    Tensor y, Tensor g, Tensor u, bool fp8) override {
    const Tensor* by_expert = offsets.empty() ? nullptr : &offsets;
    note(x, gate, by_expert);
    same_input_[&up] = &gate;
    of_.gated_matmul(x, gate, up, offsets, y, g, u, fp8);
  }
  void token_logp(const Tensor& h, const Weight& head, const Targets& target, Tensor logp,
                  Tensor lse) override {
    note(h, head, nullptr);
    of_.token_logp(h, head, target, logp, lse);
  }

  // All others as they are.
  std::string name() const override { return of_.name(); }
  void* allocate(int64_t bytes) override { return of_.allocate(bytes); }
  void release(void* p, int64_t bytes) override { of_.release(p, bytes); }
  int64_t packed_bytes(const Weight& w, DType dtype, bool fp8, PackUse use) const override {
    return of_.packed_bytes(w, dtype, fp8, use);
  }
  int64_t work_bytes(const WorkShape& s) const override { return of_.work_bytes(s); }
  void upload(const void* host, Tensor t) override { of_.upload(host, t); }
  void download(const Tensor& t, void* host) override { of_.download(t, host); }
  void copy(const Tensor& src, Tensor dst, Accum a) override { of_.copy(src, dst, a); }
  void zero(Tensor t) override { of_.zero(t); }
  void gather_rows(const Tensor& x, const Tensor& index, Tensor y) override {
    of_.gather_rows(x, index, y);
  }
  void scatter_rows(const Tensor& x, const Tensor& index, Tensor y) override {
    of_.scatter_rows(x, index, y);
  }
  void gather_sum(const Tensor& x, const Tensor& index, Tensor y, Accum a) override {
    of_.gather_sum(x, index, y, a);
  }
  void embed(const Tensor& ids, const Weight& w, Tensor y) override { of_.embed(ids, w, y); }
  void embed_backward(const Tensor& ids, const Tensor& dy, Tensor dw) override {
    of_.embed_backward(ids, dy, dw);
  }
  void matmul_dx(const Tensor& dy, const Weight& w, Tensor dx, Accum a, bool fp8) override {
    of_.matmul_dx(dy, w, dx, a, fp8);
  }
  void matmul_dw(const Tensor& dy, const Tensor& x, Tensor dw, Accum a, bool fp8) override {
    of_.matmul_dw(dy, x, dw, a, fp8);
  }
  void grouped_matmul_dx(const Tensor& dy, const Weight& w, const Tensor& offsets, Tensor dx,
                         Accum a, bool fp8) override {
    of_.grouped_matmul_dx(dy, w, offsets, dx, a, fp8);
  }
  void grouped_matmul_dw(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                         std::span<const Tensor> dw, Accum a, bool fp8) override {
    of_.grouped_matmul_dw(dy, x, offsets, dw, a, fp8);
  }
  void gated_matmul_dx(const Tensor& dy, const Weight& gate, const Weight& up,
                       const Tensor& offsets, Tensor g, Tensor u, Tensor dx, Accum a,
                       bool fp8) override {
    of_.gated_matmul_dx(dy, gate, up, offsets, g, u, dx, a, fp8);
  }
  void gated_matmul_dw(const Tensor& dg, const Tensor& du, const Tensor& x, const Tensor& offsets,
                       std::span<const Tensor> dgate, std::span<const Tensor> dup, Accum a,
                       bool fp8) override {
    of_.gated_matmul_dw(dg, du, x, offsets, dgate, dup, a, fp8);
  }
  void column_sum(const Tensor& dy, Tensor db, Accum a) override { of_.column_sum(dy, db, a); }
  void gemm(const Tensor& a, bool ta, const Tensor& b, bool tb, float alpha, float beta,
            Tensor c) override {
    of_.gemm(a, ta, b, tb, alpha, beta, c);
  }
  void rms_norm(const Tensor& x, const Weight& gain, float eps, Tensor y, Tensor inv) override {
    of_.rms_norm(x, gain, eps, y, inv);
  }
  void rms_norm_backward(const Tensor& x, const Weight& gain, const Tensor& inv, const Tensor& dy,
                         Tensor dx, Accum a, Tensor dgain) override {
    of_.rms_norm_backward(x, gain, inv, dy, dx, a, dgain);
  }
  void rope(const Tensor& x, const Tensor& pos, const Tensor& cos, const Tensor& sin,
            const RopeParams& p, Tensor y, Accum a) override {
    of_.rope(x, pos, cos, sin, p, y, a);
  }
  void add(const Tensor& a, const Tensor& b, Tensor y) override { of_.add(a, b, y); }
  void scale(const Tensor& x, float factor, Tensor y, Accum a) override {
    of_.scale(x, factor, y, a);
  }
  void swiglu(const Tensor& g, const Tensor& u, Tensor y) override { of_.swiglu(g, u, y); }
  void attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
              std::span<const AttendSegment> segments, const AttendParams& p, Tensor y,
              Tensor lse) override {
    of_.attend(q, k, v, shared, segments, p, y, lse);
  }
  void attend_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
                       std::span<const AttendSegment> segments, const AttendParams& p,
                       const Tensor& y, const Tensor& lse, const Tensor& dy, Tensor dq, Tensor dk,
                       Tensor dv, Tensor dshared) override {
    of_.attend_backward(q, k, v, shared, segments, p, y, lse, dy, dq, dk, dv, dshared);
  }
  void attend_cached(const Tensor& q, const Tensor& pool, int page_rows,
                     std::span<const CachedSegment> segments, const AttendParams& p, int k_col,
                     int v_col, Tensor y) override {
    of_.attend_cached(q, pool, page_rows, segments, p, k_col, v_col, y);
  }
  void absorb_query(const Tensor& q, const Weight& kv_b, int heads, int dn, int dr, int dv,
                    Tensor y) override {
    of_.absorb_query(q, kv_b, heads, dn, dr, dv, y);
  }
  void absorb_output(const Tensor& x, const Weight& kv_b, int heads, int dn, int dv,
                     Tensor y) override {
    of_.absorb_output(x, kv_b, heads, dn, dv, y);
  }
  void route(const Tensor& logits, const Tensor& bias, const Tensor& given, const RouteParams& p,
             Tensor expert, Tensor weight, Tensor load) override {
    of_.route(logits, bias, given, p, expert, weight, load);
  }
  void route_backward(const Tensor& logits, const Tensor& expert, const Tensor& weight,
                      const Tensor& dweight, const RouteParams& p, Tensor dlogits) override {
    of_.route_backward(logits, expert, weight, dweight, p, dlogits);
  }
  double balance_loss(const Tensor& logits, std::span<const AttendSegment> segments,
                      const RouteParams& p) override {
    return of_.balance_loss(logits, segments, p);
  }
  void balance_loss_backward(const Tensor& logits, std::span<const AttendSegment> segments,
                             const RouteParams& p, float factor, Tensor dlogits) override {
    of_.balance_loss_backward(logits, segments, p, factor, dlogits);
  }
  void dispatch(const Tensor& expert, int experts, Tensor offsets, Tensor token_of,
                Tensor slot_of) override {
    of_.dispatch(expert, experts, offsets, token_of, slot_of);
  }
  void combine(const Tensor& rows, const Tensor& slot_of, const Tensor& weight, const Tensor& extra,
               Tensor y) override {
    of_.combine(rows, slot_of, weight, extra, y);
  }
  void combine_backward(const Tensor& rows, const Tensor& slot_of, const Tensor& weight,
                        const Tensor& dy, Tensor drows, Tensor dweight) override {
    of_.combine_backward(rows, slot_of, weight, dy, drows, dweight);
  }
  void token_logp_backward(const Tensor& h, const Weight& head, const Targets& target,
                           const Tensor& lse, const Tensor& dlogp, Tensor dh, Accum a, Tensor dhead,
                           Accum b) override {
    of_.token_logp_backward(h, head, target, lse, dlogp, dh, a, dhead, b);
  }
  void token_logp_and_gradient(const Tensor& h, const Weight& head, const Targets& target,
                               const Tensor& dlogp, Tensor logp, Tensor dh, Tensor dhead,
                               Accum a) override {
    of_.token_logp_and_gradient(h, head, target, dlogp, logp, dh, dhead, a);
  }
  void top_tokens(const Tensor& h, const Weight& head, double temperature,
                  const TopTokens& top) override {
    of_.top_tokens(h, head, temperature, top);
  }
  void token_kl(const Tensor& h, const Weight& head, const TopTokens& teacher, const KlParams& p,
                Tensor kl, Tensor slope) override {
    of_.token_kl(h, head, teacher, p, kl, slope);
  }
  void token_kl_backward(const Tensor& h, const Weight& head, const TopTokens& teacher,
                         const KlParams& p, const Tensor& slope, const Tensor& dkl, Tensor dh,
                         Accum a, Tensor dhead, Accum b) override {
    of_.token_kl_backward(h, head, teacher, p, slope, dkl, dh, a, dhead, b);
  }
  double sum_squares(const Tensor& t) override { return of_.sum_squares(t); }
  void adamw(Tensor w, const Tensor& grad, Tensor m, Tensor v, const AdamWParams& p) override {
    of_.adamw(w, grad, m, v, p);
  }
  void axpby(float a, const Tensor& x, float b, Tensor y) override { of_.axpby(a, x, b, y); }
  DType product_dtype(DType dtype) const override { return of_.product_dtype(dtype); }
  double measure_peak_flops(DType dtype) override { return of_.measure_peak_flops(dtype); }

 private:
  // offsets: where the rows of each expert begin; nullptr: one matrix.
  void note(const Tensor& x, const Weight& w, const Tensor* offsets);

  Device& of_;
  std::map<const Weight*, Squares> squares_;
  std::map<const Weight*, const Weight*> same_input_;  // of a gate's twin: the gate
};

}  // namespace wels
