// Linear layer: y = x · wᵀ + b.
#include "nn/ops.h"

namespace wels {

namespace {

Var plain_matmul(Ctx& ctx, const Var& x, Weight& w, Weight* bias) {
  DType type = w.full_precision ? ctx.stat_dtype() : ctx.dtype;
  bool fp8 = ctx.fp8 && w.fp8;
  Var y = ctx.make(type, x.t.rows, w.rows);
  ctx.dev.matmul(x.t, w, bias, y.t, fp8);
  if (!ctx.tape) return y;
  // dx = dy · w, dw = dyᵀ · x, db = sum of dy's rows.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, x, &w, bias, fp8](const Tensor& dy) {
    GradOut dx = tape->grad_out(x);
    GradOut dw = weight_grad(w);
    if (!dx.t.empty()) dev.matmul_dx(dy, w, dx.t, dx.accum, fp8);
    if (!dw.t.empty()) dev.matmul_dw(dy, x.t, dw.t, dw.accum, fp8);
    if (bias) {
      GradOut db = weight_grad(*bias);
      if (!db.t.empty()) dev.column_sum(dy, db.t, db.accum);
    }
  });
  return y;
}

}  // namespace

Var matmul(Ctx& ctx, const Var& x, Weight& w, Weight* bias) {
  Var y = plain_matmul(ctx, x, w, bias);
  if (!w.lora) return y;
  // A low-rank change: + scale · (x · downᵀ) · upᵀ. These ops bring their own gradients.
  Var inner = scale(ctx, plain_matmul(ctx, x, w.lora->down, nullptr), w.lora->scale);
  return add(ctx, y, plain_matmul(ctx, inner, w.lora->up, nullptr));
}

}  // namespace wels
