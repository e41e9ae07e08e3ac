// MLA's cached row (V3 eq. 1-3): W_DKV·h holds the latent c and the shared rotary key k^R side by
// side. c is normalised, k^R turned.
#include "nn/ops.h"

namespace wels {

std::array<Var, 2> latent_row(Ctx& ctx, const Var& x, Weight& gain, float eps, const Positions& pos,
                              bool interleaved) {
  int64_t r = gain.cols, dr = x.t.cols - r;
  RopeParams p{.heads = 1,
               .head_dim = static_cast<int>(dr),
               .rotated = static_cast<int>(dr),
               .interleaved = interleaved};
  Var latent = ctx.make(ctx.dtype, x.t.rows, r);
  Var key = ctx.make(ctx.dtype, x.t.rows, dr);
  Var inv_rms = ctx.tape ? ctx.make_aux(ctx.stat_dtype(), x.t.rows, 1) : Var();
  ctx.dev.rms_norm(x.t.col_range(0, r), gain, eps, latent.t, inv_rms.t);
  ctx.dev.rope(x.t.col_range(r, dr), pos.pos.t, pos.cos, pos.sin, p, key.t);
  if (ctx.tape) {
    // Both halves' gradients land in one row: dx's first r columns as in rms_norm.cc from dlatent,
    // the last dr are dkey turned back.
    ctx.tape->record2(latent, key,
                      [&dev = ctx.dev, tape = ctx.tape, x, &gain, inv_rms, pos, p, r, dr](
                          const Tensor& dlatent, const Tensor& dkey) {
                        GradOut dx = tape->grad_out(x);
                        GradOut dgain = weight_grad(gain);
                        if (!dgain.t.empty() && dgain.accum == Accum::kSet) dev.zero(dgain.t);
                        dev.rms_norm_backward(x.t.col_range(0, r), gain, inv_rms.t, dlatent,
                                              dx.t.col_range(0, r), dx.accum, dgain.t);
                        RopeParams back = p;
                        back.inverse = true;
                        dev.rope(dkey, pos.pos.t, pos.cos, pos.sin, back, dx.t.col_range(r, dr),
                                 dx.accum);
                      });
  }
  return {latent, key};
}

}  // namespace wels
