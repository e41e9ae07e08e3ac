// y = a + b.
#include "nn/ops.h"

namespace wels {

Var add(Ctx& ctx, const Var& a, const Var& b) {
  Var y = ctx.make(a.t.dtype, a.t.rows, a.t.cols);
  ctx.dev.add(a.t, b.t, y.t);
  if (!ctx.tape) return y;
  // da = dy, db = dy: the same tensor for both terms.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, a, b, y](const Tensor& dy) {
    GradOut db = tape->grad_out(b);
    if (!db.t.empty()) dev.copy(dy, db.t, db.accum);
    tape->pass_through(a, y);  // after b: what flows further into a's slot must not reach b
  });
  return y;
}

}  // namespace wels
