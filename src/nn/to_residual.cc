// The start of a residual stream: y = x, from T to the stream's dtype (f32 for bf16 activations).
#include "nn/ops.h"

namespace wels {

Var to_residual(Ctx& ctx, const Var& x) {
  if (x.t.dtype == ctx.residual_dtype()) return x;
  Var y = ctx.make(ctx.residual_dtype(), x.t.rows, x.t.cols);
  ctx.dev.copy(x.t, y.t);
  if (!ctx.tape) return y;
  // dx = dy, rounded to T.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, x](const Tensor& dy) {
    GradOut dx = tape->grad_out(x);
    if (!dx.t.empty()) dev.copy(dy, dx.t, dx.accum);
  });
  return y;
}

}  // namespace wels
