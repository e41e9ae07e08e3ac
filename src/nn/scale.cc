// y = factor · x.
#include "nn/ops.h"

namespace wels {
namespace {

void scaled_copy(Device& dev, const Tensor& x, float factor, Tensor y) {
  dev.copy(x, y);
  dev.axpby(0, x, factor, y);
}

}  // namespace

Var scale(Ctx& ctx, const Var& x, float factor) {
  Var y = ctx.make(x.t.dtype, x.t.rows, x.t.cols);
  scaled_copy(ctx.dev, x.t, factor, y.t);
  if (!ctx.tape) return y;
  ctx.tape->record(
      y, [&dev = ctx.dev, &pool = ctx.pool, tape = ctx.tape, x, factor](const Tensor& dy) {
        GradOut dx = tape->grad_out(x);
        if (dx.t.empty()) return;
        OwnedTensor scaled = make_tensor(pool, dx.t.dtype, dx.t.rows, dx.t.cols);
        scaled_copy(dev, dy, factor, scaled.t);
        dev.copy(scaled.t, dx.t, dx.accum);
      });
  return y;
}

}  // namespace wels
