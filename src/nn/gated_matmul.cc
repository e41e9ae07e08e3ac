// SwiGLU with its two linear layers, plain or per expert: y = silu(g) ∘ u of g = x · gateᵀ and
// u = x · upᵀ; silu(g) = g · σ(g).
#include "nn/ops.h"

namespace wels {
namespace {

// The products apart, for weights with a low-rank change. Nothing else reads g and u, so their
// gradients take their places here too.
Var gated_low_rank(Ctx& ctx, const Var& x, Weight& gate, Weight& up) {
  Var g = matmul(ctx, x, gate), u = matmul(ctx, x, up);
  Var y = ctx.make(ctx.dtype, x.t.rows, gate.rows);
  ctx.dev.swiglu(g.t, u.t, y.t);
  if (!ctx.tape) return y;
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, g, u, &gate, &up](const Tensor& dy) {
    dev.gated_matmul_dx(dy, gate, up, Tensor(), g.t, u.t, Tensor(), Accum::kSet);
    tape->pass_on(g, {g.t, g.memory});
    tape->pass_on(u, {u.t, u.memory});
  });
  return y;
}

}  // namespace

Var gated_matmul(Ctx& ctx, const Var& x, Weight& gate, Weight& up, const Var& offsets) {
  CHECK(gate.fp8 == up.fp8);
  if (gate.lora || up.lora) {
    CHECK(offsets.empty());
    return gated_low_rank(ctx, x, gate, up);
  }
  bool fp8 = ctx.fp8 && gate.fp8;
  Var y = ctx.make(ctx.dtype, x.t.rows, gate.rows);
  if (!ctx.tape) {
    ctx.dev.gated_matmul(x.t, gate, up, offsets.t, y.t, Tensor(), Tensor(), fp8);
    return y;
  }
  Var g = ctx.make_aux(ctx.dtype, y.t.rows, y.t.cols),
      u = ctx.make_aux(ctx.dtype, g.t.rows, g.t.cols);
  ctx.dev.gated_matmul(x.t, gate, up, offsets.t, y.t, g.t, u.t, fp8);
  // dg = dy ∘ u ∘ silu'(g) with silu'(g) = σ(g) · (1 + g · (1 - σ(g))), du = dy ∘ silu(g): they
  // take the places of g and u. dx = dg · gate + du · up, dgate = dgᵀ · x, dup = duᵀ · x.
  ctx.tape->record(
      y, [&dev = ctx.dev, tape = ctx.tape, x, &gate, &up, offsets, g, u, fp8](const Tensor& dy) {
        GradOut dx = tape->grad_out(x);
        dev.gated_matmul_dx(dy, gate, up, offsets.t, g.t, u.t, dx.t, dx.accum, fp8);
        CHECK(gate.trainable() == up.trainable());
        if (!gate.trainable()) return;
        CHECK(gate.fresh_grad == up.fresh_grad);
        Accum accum = gate.fresh_grad ? Accum::kSet : Accum::kAdd;
        dev.gated_matmul_dw(g.t, u.t, x.t, offsets.t, gate.grad, up.grad, accum, fp8);
        gate.fresh_grad = up.fresh_grad = false;
      });
  return y;
}

}  // namespace wels
