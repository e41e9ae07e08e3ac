// The divergence from a teacher's distribution: what distillation sees of the vocabulary. Over the
// teacher's tokens, and one bucket for all others, with p of softmax(s), s = h · headᵀ / T, and the
// teacher's q: kl = Σ q log(q / p), reverse: Σ p log(p / q).
#include "nn/ops.h"

namespace wels {

Var token_kl(Ctx& ctx, const Var& h, Weight& head, const TopTokens& teacher, const KlParams& p) {
  Var kl = ctx.make(ctx.stat_dtype(), h.t.rows, 1);
  if (!ctx.tape) {
    ctx.dev.token_kl(h.t, head, teacher, p, kl.t, Tensor());
    return kl;
  }
  Var slope = ctx.make_aux(ctx.stat_dtype(), h.t.rows, teacher.k() + 2);
  ctx.dev.token_kl(h.t, head, teacher, p, kl.t, slope.t);
  // dkl/ds = p - q; reverse: p · (log(p / q) - kl). A token of the bucket has the bucket's, times
  // its share of it. Then ds = dkl · dkl/ds, dh = ds · head / T, dhead = dsᵀ · h / T.
  ctx.tape->record(
      kl, [&dev = ctx.dev, tape = ctx.tape, h, &head, teacher, p, slope](const Tensor& dkl) {
        GradOut dh = tape->grad_out(h);
        GradOut dhead = weight_grad(head);
        dev.token_kl_backward(h.t, head, teacher, p, slope.t, dkl, dh.t, dh.accum, dhead.t,
                              dhead.accum);
      });
  return kl;
}

}  // namespace wels
