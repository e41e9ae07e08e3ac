// Activation recomputation (V3 §3.2.3 recomputes norms and up-projections; here: whole blocks).
#include "nn/ops.h"

namespace wels {

Var recompute(Ctx& ctx, const Var& x, std::function<Var(Ctx&, const Var&)> fn) {
  if (!ctx.tape) return fn(ctx, x);
  Ctx inference = ctx;
  inference.tape = nullptr;
  Var y = fn(inference, x);
  y.node = ctx.tape->new_node();
  // dx = what the backward of fn makes of dy, on a tape of its own.
  ctx.tape->record(y, [&ctx, tape = ctx.tape, x, y, fn = std::move(fn)](const Tensor& dy) {
    GradOut dx = tape->grad_out(x);  // the slot first: its owner must outlive the inner tape
    Tape inner(ctx.dev, ctx.pool);
    Ctx again = ctx;
    again.tape = &inner;
    Var leaf = x;
    leaf.node = inner.new_node();
    Var out = fn(again, leaf);
    GradOut dout = inner.grad_out(out);
    ctx.dev.copy(dy, dout.t);
    inner.backward();
    Tensor dleaf = inner.grad(leaf);
    if (!dx.t.empty()) ctx.dev.copy(dleaf, dx.t, dx.accum);
  });
  return y;
}

}  // namespace wels
