// The experts' results back in the order of the tokens (V3 eq. 12):
// y_t = Σ_j weight_tj · rows[slot_of_tj] + shared_t.
#include "nn/ops.h"

namespace wels {

Var combine(Ctx& ctx, const Var& rows, const Routed& r, const Var& shared) {
  Var y = ctx.make(ctx.dtype, r.slot_of.t.rows, rows.t.cols);
  ctx.dev.combine(rows.t, r.slot_of.t, r.weight.t, shared.t, y.t);
  if (!ctx.tape) return y;
  // drows[slot_of_tj] = weight_tj · dy_t, dweight_tj = dy_t · rows[slot_of_tj], dshared = dy.
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
