// The router (V3 eq. 12-20): logits → chosen experts, their weights, and the order in which experts
// work on the rows. Of a row: s = sigmoid(logits) (V2: softmax); chosen are the k experts with the
// largest s + bias, and w_j = scale · s_j / Σ s over the chosen (without normalize: scale · s_j).
#include "nn/ops.h"

namespace wels {

Routed route(Ctx& ctx, const Var& logits, const Tensor& bias, const Var& given,
             const RouteParams& p, float balance_factor,
             const std::vector<AttendSegment>& segments) {
  int64_t n = logits.t.rows;
  Routed r;
  r.logits = logits;
  r.expert = ctx.make_aux(DType::kI32, n, p.top_k);
  r.weight = ctx.make(ctx.stat_dtype(), n, p.top_k);
  r.load = ctx.make_aux(DType::kI32, 1, p.experts);
  ctx.dev.route(logits.t, bias, given.t, p, r.expert.t, r.weight.t, r.load.t);
  r.offsets = ctx.make_aux(DType::kI32, 1, p.experts + 1);
  r.token_of = ctx.make_aux(DType::kI32, 1, n * p.top_k);
  r.slot_of = ctx.make_aux(DType::kI32, n, p.top_k);
  ctx.dev.dispatch(r.expert.t, p.experts, r.offsets.t, r.token_of.t, r.slot_of.t);
  if (!ctx.tape) return r;
  // The choice is constant: only the chosen scores have a gradient. With Σ over the chosen,
  //   ds_j = scale · (dw_j - Σ_i dw_i s_i / Σ s) / Σ s   (without normalize: scale · dw_j)
  //   dlogits = ds ∘ s ∘ (1 - s)                         (softmax: s ∘ (ds - Σ_e ds_e s_e))
  // The balance loss (17-20) adds factor · d/dlogits Σ_e f_e P_e, f_e constant.
  ctx.tape->record(
      r.weight, [&dev = ctx.dev, tape = ctx.tape, logits, expert = r.expert, weight = r.weight, p,
                 balance_factor, segments](const Tensor& dweight) {
        GradOut dlogits = tape->grad_out(logits);
        CHECK(dlogits.accum == Accum::kSet);
        dev.route_backward(logits.t, expert.t, weight.t, dweight, p, dlogits.t);
        if (balance_factor != 0)
          dev.balance_loss_backward(logits.t, segments, p, balance_factor, dlogits.t);
      });
  return r;
}

}  // namespace wels
