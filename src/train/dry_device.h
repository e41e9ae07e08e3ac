// DryDevice: a device that computes nothing and has no memory, and notes what another device would
// have kept. Training code run on it takes and gives back exactly the buffers of a real step: what
// the step needs is known before there is room for it (memory_plan.h).
#pragma once
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "backend/device.h"

namespace wels {

class DryDevice : public Device {
 public:
  // Notes packs and work space as `of` would have them; it must outlive this object.
  explicit DryDevice(const Device& of) : of_(of) {}
  std::string name() const override { return "dry run of " + of_.name(); }

  int64_t held_bytes() const { return held_; }     // allocated and not released
  using Device::packed_bytes, Device::work_bytes;  // what one weight, one call would take
  int64_t packed_bytes() const { return packed_; }
  // The forward packs of stacks of experts, which are among them.
  struct Stack {
    int64_t bytes, experts;
  };
  const std::vector<Stack>& stacks() const { return stacks_; }
  int64_t work_bytes() const { return of_.work_bytes(largest_); }

  // Addresses that nobody reads or writes; downloads are zeros.
  void* allocate(int64_t bytes) override;
  void release(void* p, int64_t bytes) override { held_ -= bytes; }
  void upload(const void* host, Tensor t) override {}
  void download(const Tensor& t, void* host) override;

  // Ops that make the other device keep something.
  void matmul(const Tensor& x, const Weight& w, const Weight*, Tensor, bool fp8) override {
    forward(x, w, fp8);
  }
  void matmul_dx(const Tensor& dy, const Weight& w, Tensor, Accum, bool fp8) override {
    product(w, dy.dtype, fp8, PackUse::kBackward);
  }
  void grouped_matmul(const Tensor& x, const Weight& w, const Tensor&, Tensor, bool fp8) override {
    forward(x, w, fp8);
  }
  void grouped_matmul_dx(const Tensor& dy, const Weight& w, const Tensor&, Tensor, Accum,
                         bool fp8) override {
    product(w, dy.dtype, fp8, PackUse::kBackward);
  }
  void gated_matmul(const Tensor& x, const Weight& gate, const Weight& up, const Tensor&, Tensor,
                    Tensor, Tensor, bool fp8) override {
    forward(x, gate, fp8);
    forward(x, up, fp8);
  }
  void gated_matmul_dx(const Tensor& dy, const Weight& gate, const Weight& up, const Tensor&,
                       Tensor, Tensor, Tensor, Accum, bool fp8) override {
    product(gate, dy.dtype, fp8, PackUse::kBackward);
    product(up, dy.dtype, fp8, PackUse::kBackward);
  }
  void token_logp(const Tensor& h, const Weight& head, const Targets&, Tensor, Tensor) override {
    product(head, h.dtype, false, PackUse::kDecoded);
  }
  void token_logp_and_gradient(const Tensor& h, const Weight& head, const Targets&, const Tensor&,
                               Tensor, Tensor, Tensor, Accum) override {
    head_gradient(h, head);
  }
  void token_logp_backward(const Tensor& h, const Weight& head, const Targets&, const Tensor&,
                           const Tensor&, Tensor, Accum, Tensor, Accum) override {
    head_gradient(h, head);
  }
  void top_tokens(const Tensor& h, const Weight& head, double, const TopTokens&) override {
    product(head, h.dtype, false, PackUse::kDecoded);
  }
  void token_kl(const Tensor& h, const Weight& head, const TopTokens&, const KlParams&, Tensor,
                Tensor) override {
    product(head, h.dtype, false, PackUse::kDecoded);
  }
  void token_kl_backward(const Tensor& h, const Weight& head, const TopTokens&, const KlParams&,
                         const Tensor&, const Tensor&, Tensor, Accum, Tensor, Accum) override {
    head_gradient(h, head);
  }
  void absorb_query(const Tensor& q, const Weight& kv_b, int, int, int, int, Tensor) override {
    product(kv_b, q.dtype, false, PackUse::kQuery);
  }
  void absorb_output(const Tensor& x, const Weight& kv_b, int, int, int, Tensor) override {
    product(kv_b, x.dtype, false, PackUse::kDecoded);
  }
  void gemm(const Tensor&, bool, const Tensor& b, bool, float, float, Tensor) override {
    largest_.gemm_right = std::max(largest_.gemm_right, b.size());
  }
  void attend_backward(const Tensor& q, const Tensor&, const Tensor&, const Tensor&,
                       std::span<const AttendSegment> segments, const AttendParams& p,
                       const Tensor&, const Tensor&, const Tensor&, Tensor, Tensor, Tensor,
                       Tensor) override;

  // The others.
  void copy(const Tensor&, Tensor, Accum) override {}
  void zero(Tensor) override {}
  void gather_rows(const Tensor&, const Tensor&, Tensor) override {}
  void scatter_rows(const Tensor&, const Tensor&, Tensor) override {}
  void gather_sum(const Tensor&, const Tensor&, Tensor, Accum) override {}
  void embed(const Tensor&, const Weight&, Tensor) override {}
  void embed_backward(const Tensor&, const Tensor&, Tensor) override {}
  void matmul_dw(const Tensor&, const Tensor&, Tensor, Accum, bool) override {}
  void grouped_matmul_dw(const Tensor&, const Tensor&, const Tensor&, std::span<const Tensor>,
                         Accum, bool) override {}
  void gated_matmul_dw(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                       std::span<const Tensor>, std::span<const Tensor>, Accum, bool) override {}
  void column_sum(const Tensor&, Tensor, Accum) override {}
  void rms_norm(const Tensor&, const Weight&, float, Tensor, Tensor) override {}
  void rms_norm_backward(const Tensor&, const Weight&, const Tensor&, const Tensor&, Tensor, Accum,
                         Tensor) override {}
  void rope(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const RopeParams&, Tensor,
            Accum) override {}
  void add(const Tensor&, const Tensor&, Tensor) override {}
  void scale(const Tensor&, float, Tensor, Accum) override {}
  void swiglu(const Tensor&, const Tensor&, Tensor) override {}
  void attend(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
              std::span<const AttendSegment>, const AttendParams&, Tensor, Tensor) override {}
  void attend_cached(const Tensor&, const Tensor&, int, std::span<const CachedSegment>,
                     const AttendParams&, int, int, Tensor) override {}
  void route(const Tensor&, const Tensor&, const Tensor&, const RouteParams&, Tensor, Tensor,
             Tensor) override {}
  void route_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                      const RouteParams&, Tensor) override {}
  double balance_loss(const Tensor&, std::span<const AttendSegment>, const RouteParams&) override {
    return 0;
  }
  void balance_loss_backward(const Tensor&, std::span<const AttendSegment>, const RouteParams&,
                             float, Tensor) override {}
  void dispatch(const Tensor&, int, Tensor, Tensor, Tensor) override {}
  void combine(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Tensor) override {}
  void combine_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Tensor,
                        Tensor) override {}
  double sum_squares(const Tensor&) override { return 1; }
  void adamw(Tensor, const Tensor&, Tensor, Tensor, const AdamWParams&) override {}
  void axpby(float, const Tensor&, float, Tensor) override {}
  DType product_dtype(DType dtype) const override { return of_.product_dtype(dtype); }
  double measure_peak_flops(DType) override { return 0; }

 private:
  void forward(const Tensor& x, const Weight& w, bool fp8);
  void product(const Weight& w, DType dtype, bool fp8, PackUse use);
  void head_gradient(const Tensor& h, const Weight& head);

  const Device& of_;
  std::vector<Stack> stacks_;
  int64_t held_ = 0, packed_ = 0, next_address_ = int64_t{1} << 32;
  std::set<std::tuple<const Weight*, DType, bool, PackUse>> seen_;  // weight, type, fp8, use
  WorkShape largest_;
};

}  // namespace wels
