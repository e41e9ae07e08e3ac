// One linear layer per expert over rows sorted by expert: y = x · w_eᵀ for the rows of expert e.
#include "nn/ops.h"

namespace wels {

Var grouped_matmul(Ctx& ctx, const Var& x, Weight& w, const Var& offsets) {
  bool fp8 = ctx.fp8 && w.fp8;
  Var y = ctx.make(ctx.dtype, x.t.rows, w.rows);
  ctx.dev.grouped_matmul(x.t, w, offsets.t, y.t, fp8);
  if (!ctx.tape) return y;
  // Of the rows of expert e: dx = dy · w_e, dw_e = dyᵀ · x.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, x, &w, offsets, fp8](const Tensor& dy) {
    GradOut dx = tape->grad_out(x);
    if (!dx.t.empty()) dev.grouped_matmul_dx(dy, w, offsets.t, dx.t, dx.accum, fp8);
    if (w.trainable()) {
      Accum accum = w.fresh_grad ? Accum::kSet : Accum::kAdd;
      dev.grouped_matmul_dw(dy, x.t, offsets.t, w.grad, accum, fp8);
      w.fresh_grad = false;
    }
  });
  return y;
}

}  // namespace wels
