// SwiGLU's elementwise part: y = silu(gate) · up.
#include "nn/ops.h"

namespace wels {

Var swiglu(Ctx& ctx, const Var& gate, const Var& up) {
  Var y = ctx.make(ctx.dtype, gate.t.rows, gate.t.cols);
  ctx.dev.swiglu(gate.t, up.t, y.t);
  if (!ctx.tape) return y;
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, gate, up](const Tensor& dy) {
    // gate and up are distinct results of matmuls with one reader each, so both slots are to be
    // set.
    GradOut dgate = tape->grad_out(gate);
    GradOut dup = tape->grad_out(up);
    CHECK(dgate.accum == Accum::kSet);
    CHECK(dup.accum == Accum::kSet);
    dev.swiglu_backward(gate.t, up.t, dy, dgate.t, dup.t);
  });
  return y;
}

}  // namespace wels
