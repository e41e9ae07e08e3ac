// y = factor · x.
#include "nn/ops.h"

namespace wels {

Var scale(Ctx& ctx, const Var& x, double factor) {
  auto f = static_cast<float>(factor);
  Var y = ctx.make(x.t.dtype, x.t.rows, x.t.cols);
  ctx.dev.scale(x.t, f, y.t, Accum::kSet);
  if (!ctx.tape) return y;
  // dx = factor · dy.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, x, f](const Tensor& dy) {
    GradOut dx = tape->grad_out(x);
    if (!dx.t.empty()) dev.scale(dy, f, dx.t, dx.accum);
  });
  return y;
}

}  // namespace wels
