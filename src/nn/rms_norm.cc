// RMSNorm: y = x · inv ∘ gain, inv = 1 / sqrt(mean(x²) + eps) of each row.
#include "nn/ops.h"

namespace wels {

Var rms_norm(Ctx& ctx, const Var& x, Weight& gain, float eps) {
  Var y = ctx.make(ctx.dtype, x.t.rows, x.t.cols);
  Var inv_rms = ctx.tape ? ctx.make_aux(ctx.stat_dtype(), x.t.rows, 1) : Var();
  ctx.dev.rms_norm(x.t, gain, eps, y.t, inv_rms.t);
  if (!ctx.tape) return y;
  // Of each row, with g = gain ∘ dy: dx = inv · (g - x · inv² · mean(g ∘ x)). dgain = sum over the
  // rows of dy ∘ x · inv.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, x, &gain, inv_rms](const Tensor& dy) {
    GradOut dx = tape->grad_out(x);
    GradOut dgain = weight_grad(gain);
    if (!dgain.t.empty() && dgain.accum == Accum::kSet) dev.zero(dgain.t);
    dev.rms_norm_backward(x.t, gain, inv_rms.t, dy, dx.t, dx.accum, dgain.t);
  });
  return y;
}

}  // namespace wels
