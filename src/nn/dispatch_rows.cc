// Rows in the order of the experts that work on them: rows[i] = x[token_of[i]], k times each token.
#include "nn/ops.h"

namespace wels {

Var dispatch_rows(Ctx& ctx, const Var& x, const Routed& r) {
  Var rows = ctx.make(ctx.dtype, r.token_of.t.cols, x.t.cols);
  ctx.dev.gather_rows(x.t, r.token_of.t, rows.t);
  if (!ctx.tape) return rows;
  // dx_t = Σ_j drows[slot_of_tj].
  ctx.tape->record(rows,
                   [&dev = ctx.dev, tape = ctx.tape, x, slot_of = r.slot_of](const Tensor& drows) {
                     GradOut dx = tape->grad_out(x);
                     if (!dx.t.empty()) dev.gather_sum(drows, slot_of.t, dx.t, dx.accum);
                   });
  return rows;
}

}  // namespace wels
