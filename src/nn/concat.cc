// y = [a ; b] along the columns (MTP's input, V3 eq. 21).
#include "nn/ops.h"

namespace wels {

Var concat(Ctx& ctx, const Var& a, const Var& b) {
  Var y = ctx.make(ctx.dtype, a.t.rows, a.t.cols + b.t.cols);
  ctx.dev.copy(a.t, y.t.col_range(0, a.t.cols));
  ctx.dev.copy(b.t, y.t.col_range(a.t.cols, b.t.cols));
  if (!ctx.tape) return y;
  // [da ; db] = dy.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, a, b](const Tensor& dy) {
    GradOut da = tape->grad_out(a);
    if (!da.t.empty()) dev.copy(dy.col_range(0, a.t.cols), da.t, da.accum);
    GradOut db = tape->grad_out(b);
    if (!db.t.empty()) dev.copy(dy.col_range(a.t.cols, b.t.cols), db.t, db.accum);
  });
  return y;
}

}  // namespace wels
