// The router (V3 eq. 12-20): logits → chosen experts, their weights, and the order in which experts
// work on the rows.
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

Var dispatch_rows(Ctx& ctx, const Var& x, const Routed& r) {
  Var rows = ctx.make(ctx.dtype, r.token_of.t.cols, x.t.cols);
  ctx.dev.gather_rows(x.t, r.token_of.t, rows.t);
  if (!ctx.tape) return rows;
  ctx.tape->record(rows,
                   [&dev = ctx.dev, tape = ctx.tape, x, slot_of = r.slot_of](const Tensor& drows) {
                     GradOut dx = tape->grad_out(x);
                     if (!dx.t.empty()) dev.gather_sum(drows, slot_of.t, dx.t, dx.accum);
                   });
  return rows;
}

Var combine(Ctx& ctx, const Var& rows, const Routed& r, const Var& shared) {
  Var y = ctx.make(ctx.dtype, r.slot_of.t.rows, rows.t.cols);
  ctx.dev.combine(rows.t, r.slot_of.t, r.weight.t, shared.t, y.t);
  if (!ctx.tape) return y;
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, rows, slot_of = r.slot_of,
                       weight = r.weight, shared, y](const Tensor& dy) {
    GradOut drows = tape->grad_out(rows);
    GradOut dweight = tape->grad_out(weight);
    CHECK(drows.accum == Accum::kSet);
    CHECK(dweight.accum == Accum::kSet);
    dev.combine_backward(rows.t, slot_of.t, weight.t, dy, drows.t, dweight.t);
    if (!shared.empty()) tape->pass_through(shared, y);
  });
  return y;
}

}  // namespace wels
