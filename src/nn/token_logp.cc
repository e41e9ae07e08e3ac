// Log-probabilities of given tokens: the only thing that training objectives see of the vocabulary.
// logp = s_target - log Σ_v exp(s_v) with s = h · headᵀ / T.
#include "nn/ops.h"

namespace wels {
namespace {

bool same_values(Device& dev, const Tensor& a, const Tensor& b) {
  if (a.dtype != b.dtype || a.bytes() != b.bytes()) return false;
  std::vector<uint8_t> x(static_cast<size_t>(a.bytes())), y(x.size());
  dev.download(a, x.data());
  dev.download(b, y.data());
  return x == y;
}

// The same where dlogp is known already: the device makes dh and adds dhead now, while it has s.
void with_known_gradient(Ctx& ctx, const Var& h, Weight& head, const Targets& target,
                         const Var& known, const Var& logp) {
  OwnedTensor dh;
  if (h.node >= 0) dh = make_tensor(ctx.pool, h.t.dtype, h.t.rows, h.t.cols);
  GradOut dhead = weight_grad(head);
  ctx.dev.token_logp_and_gradient(h.t, head, target, known.t, logp.t, dh.t, dhead.t, dhead.accum);
  ctx.tape->record(logp, [&dev = ctx.dev, tape = ctx.tape, h, dh, known](const Tensor& dlogp) {
    CHECK(same_values(dev, dlogp, known.t));
    tape->pass_on(h, dh);
  });
}

}  // namespace

Var token_logp(Ctx& ctx, const Var& h, Weight& head, const Var& target, const Var& known,
               const Var& kept, double temperature) {
  Targets targets(target.t, kept.t, temperature);
  Var logp = ctx.make(ctx.stat_dtype(), h.t.rows, 1);
  if (ctx.tape && !known.empty()) {
    with_known_gradient(ctx, h, head, targets, known, logp);
    return logp;
  }
  Var lse = ctx.make_aux(ctx.stat_dtype(), h.t.rows, 1);
  ctx.dev.token_logp(h.t, head, targets, logp.t, lse.t);
  if (!ctx.tape) return logp;
  // ds_v = dlogp · ([v = target] - softmax(s)_v), dh = ds · head / T, dhead = dsᵀ · h / T.
  ctx.tape->record(logp, [&dev = ctx.dev, tape = ctx.tape, h, &head, target, kept, temperature,
                          lse](const Tensor& dlogp) {
    GradOut dh = tape->grad_out(h);
    GradOut dhead = weight_grad(head);
    dev.token_logp_backward(h.t, head, {target.t, kept.t, temperature}, lse.t, dlogp, dh.t,
                            dh.accum, dhead.t, dhead.accum);
  });
  return logp;
}

}  // namespace wels
