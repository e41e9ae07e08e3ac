// Log-probabilities of given tokens: the only thing that training objectives see of the vocabulary.
#include "nn/ops.h"

namespace wels {

Var token_logp(Ctx& ctx, const Var& h, Weight& head, const Var& target) {
  Var logp = ctx.make(ctx.stat_dtype(), h.t.rows, 1);
  Var lse = ctx.make_aux(ctx.stat_dtype(), h.t.rows, 1);
  ctx.dev.token_logp(h.t, head, target.t, logp.t, lse.t);
  if (!ctx.tape) return logp;
  ctx.tape->record(logp,
                   [&dev = ctx.dev, tape = ctx.tape, h, &head, target, lse](const Tensor& dlogp) {
                     GradOut dh = tape->grad_out(h);
                     GradOut dhead = weight_grad(head);
                     dev.token_logp_backward(h.t, head, target.t, lse.t, dlogp, dh.t, dh.accum,
                                             dhead.t, dhead.accum);
                   });
  return logp;
}

}  // namespace wels
