// Rotary positions: each pair (a, b) of a row at position p becomes
// (a cos φ - b sin φ, a sin φ + b cos φ) with φ = p · the pair's frequency (model/rope_table.h).
#include "nn/ops.h"

namespace wels {

Var rope(Ctx& ctx, const Var& x, const Positions& pos, const RopeParams& p) {
  Var y = ctx.make(ctx.dtype, x.t.rows, x.t.cols);
  ctx.dev.rope(x.t, pos.pos.t, pos.cos, pos.sin, p, y.t);
  if (!ctx.tape) return y;
  // The transposed matrix is the rotation by -φ: dx = dy turned back.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, x, pos, p](const Tensor& dy) {
    GradOut dx = tape->grad_out(x);
    RopeParams back = p;
    back.inverse = !p.inverse;
    if (!dx.t.empty()) dev.rope(dy, pos.pos.t, pos.cos, pos.sin, back, dx.t, dx.accum);
  });
  return y;
}

}  // namespace wels
