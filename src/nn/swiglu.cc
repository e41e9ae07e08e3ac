// SwiGLU's elementwise part: y = silu(gate) · up.
#include "nn/ops.h"

namespace wels {

Var swiglu(Ctx& ctx, const Var& gate, const Var& up) {
  Var y = ctx.make(ctx.dtype, gate.t.rows, gate.t.cols);
  ctx.dev.swiglu(gate.t, up.t, y.t);
  if (!ctx.tape) return y;
  ctx.tape->record(y,
                   [&dev = ctx.dev, &pool = ctx.pool, tape = ctx.tape, gate, up](const Tensor& dy) {
                     GradOut dgate = tape->grad_out(gate);
                     GradOut dup = tape->grad_out(up);
                     // The kernel sets both; where something is there already (swiglu(x, x)) it
                     // sets a scratch tensor.
                     OwnedTensor scratch[2];
                     Tensor to[2] = {dgate.t, dup.t};
                     const GradOut* slots[2] = {&dgate, &dup};
                     for (int i = 0; i < 2; ++i) {
                       if (slots[i]->t.empty() || slots[i]->accum == Accum::kAdd) {
                         scratch[i] = make_tensor(pool, dy.dtype, dy.rows, dy.cols);
                         to[i] = scratch[i].t;
                       }
                     }
                     dev.swiglu_backward(gate.t, up.t, dy, to[0], to[1]);
                     for (int i = 0; i < 2; ++i) {
                       if (slots[i]->accum == Accum::kAdd)
                         dev.copy(to[i], slots[i]->t, Accum::kAdd);
                     }
                   });
  return y;
}

}  // namespace wels
