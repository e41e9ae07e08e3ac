// The differentiable ops: what model/ is written in. One .cc file per op, forward and backward side
// by side, the gradient's formula above the backward.
//
// Shapes: n rows (tokens), d width; T is ctx.dtype. Every function allocates its result from
// ctx.pool. Gradients of weights go to Weight::grad (set the first time in a step, then added); a
// weight without grad is frozen.
#pragma once
#include <array>
#include <functional>
#include <vector>

#include "nn/tape.h"
#include "tensor/batch.h"

namespace wels {

// The positions of a batch's rows and the table of their rotations.
struct Positions {
  Var pos;          // i32 [1, n]
  Tensor cos, sin;  // [positions, dr/2] f32 (f64 for f64 activations)
};

// y [n, d] of the residual's dtype = w[ids].
Var embed(Ctx& ctx, const Var& ids, Weight& w);
// y [n, out] = x [n, in] · wᵀ + bias. y: T; f32 for full_precision weights (the router). A weight
// with a low-rank change: y = x · wᵀ + bias + scale · (x · downᵀ) · upᵀ, each product rounded to T.
Var matmul(Ctx& ctx, const Var& x, Weight& w, Weight* bias = nullptr);
// y [n, out] with the expert e's matrix for rows [offsets[e], offsets[e+1]). offsets i32 [1, e+1].
Var grouped_matmul(Ctx& ctx, const Var& x, Weight& w, const Var& offsets);
// y [n, f] T = silu(x · gateᵀ) · (x · upᵀ): the first half of a SwiGLU feed-forward. gate and up
// [f, d] are trained together or both frozen. offsets as in grouped_matmul; empty: plain matrices.
Var gated_matmul(Ctx& ctx, const Var& x, Weight& gate, Weight& up, const Var& offsets = {});
// y [n, d] T = x / rms(x) · gain.  x: T or the residual's dtype.
Var rms_norm(Ctx& ctx, const Var& x, Weight& gain, float eps);
// x, y [n, heads·head_dim]: y = x with every head's last `rotated` columns turned.
Var rope(Ctx& ctx, const Var& x, const Positions& pos, const RopeParams& p);
// MLA's two halves of x = W_DKV·h [n, r + dr]: {c [n, r], rms_norm of the first r columns; k^R
// [n, dr], rope of the last dr}. V3 eq. 1-3.
std::array<Var, 2> latent_row(Ctx& ctx, const Var& x, Weight& gain, float eps, const Positions& pos,
                              bool interleaved);
// y = a + b, all [n, d]: the residual stream a (y is of its dtype) takes a block's output b (T).
Var add(Ctx& ctx, const Var& a, const Var& b);
// y [n, da + db] = [a ; b].
Var concat(Ctx& ctx, const Var& a, const Var& b);
// y = factor · x, both [n, d].
Var scale(Ctx& ctx, const Var& x, double factor);
// x [n, d] in the residual stream's dtype (x itself if it is that already).
Var to_residual(Ctx& ctx, const Var& x);
// y [m, d] = x [n, d]'s rows index[i] (m, distinct). index on the host.
Var select_rows(Ctx& ctx, const Var& x, const std::vector<int32_t>& index);
// Causal attention of the new rows with each other (training, first prefill), segment by segment.
// Head i has kv head g = i / (heads / kv_heads). Columns, with the letters of AttendParams:
//   q [n, heads·(dk + dr)] · k: kv head g's dk at g·k_step · v: its dv at v_col + g·v_step ·
//   shared [n, dr]: further key columns of all heads (MLA's k^R), or empty · y [n, heads·dv]
// GQA: k, v [n, hk·dh], steps dh. MLA: k and v are one Var [n, h·(dn + dv)], steps dn + dv,
// v_col = dn.
Var attend(Ctx& ctx, const Var& q, const Var& k, const Var& v, int v_col, const Var& shared,
           std::vector<AttendSegment> segments, const AttendParams& p);

// What the router decided for n rows.
struct Routed {
  Var logits;    // [n, e] f32
  Var expert;    // i32 [n, k]
  Var weight;    // [n, k] f32
  Var load;      // i32 [1, e] rows per expert
  Var offsets;   // i32 [1, e+1] \  the counting sort of (row, choice)
  Var token_of;  // i32 [1, n·k]  | pairs by expert
  Var slot_of;   // i32 [n, k]   /
};
// logits [n, e]. bias: selection bias [1, e] or empty. given: i32 [n, k], choices that are made
// already (Device::route), or empty. balance_factor > 0: the backward adds the gradient of the
// sequence-wise balance loss of `segments`, times this.
Routed route(Ctx& ctx, const Var& logits, const Tensor& bias, const Var& given,
             const RouteParams& p, float balance_factor,
             const std::vector<AttendSegment>& segments);
// rows [n·k, d] = x [n, d]'s rows in the order of the experts.
Var dispatch_rows(Ctx& ctx, const Var& x, const Routed& r);
// y [n, d] = sum of the chosen experts' rows [n·k, d] times their weights + shared [n, d] (empty:
// none).
Var combine(Ctx& ctx, const Var& rows, const Routed& r, const Var& shared);

// logp [n, 1] of target (i32 [1, n], -1: none) under softmax(h · headᵀ / temperature). known [n,
// 1], or empty: the gradient that logp is going to get, if that is known already. With a tape the
// head's gradient is then computed (and dhead added) right here, together with the values, and the
// backward checks that it was asked for this one. kept: the tokens that the softmax is over, as in
// Targets; empty: all.
Var token_logp(Ctx& ctx, const Var& h, Weight& head, const Var& target, const Var& known = {},
               const Var& kept = {}, double temperature = 1);

// kl [n, 1] between softmax(h · headᵀ / T) and the teacher's distributions (Device::token_kl),
// whose tensors must live until the backward has run.
Var token_kl(Ctx& ctx, const Var& h, Weight& head, const TopTokens& teacher, const KlParams& p);

// y = fn(x), keeping nothing but x: the backward runs fn again with a tape of its own (activation
// recomputation). fn must not depend on anything else that needs a gradient, except weights.
Var recompute(Ctx& ctx, const Var& x, std::function<Var(Ctx&, const Var&)> fn);

// The slot for a weight's gradient: matrix e's tensor and whether to set or add. Empty: frozen. (In
// weight_grad.cc.)
GradOut weight_grad(Weight& w, int64_t e = 0);

}  // namespace wels
