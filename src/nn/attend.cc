// Causal attention of a ragged batch. Of query row t, head and key row j:
//   S_tj = scale · q_t · [k_j ; shared_j],   P_tj = exp(S_tj - lse_t),   y_t = Σ_j P_tj v_j
// with lse_t = log Σ_j exp(S_tj) over the rows j that t sees, which is all that the backward gets
// of the probabilities: it makes them again.
#include "nn/ops.h"

namespace wels {
namespace {

// The part of `kv` that holds what starts at column `col` and repeats every `step` columns.
Tensor from_col(const Tensor& t, int col) { return t.col_range(col, t.cols - col); }

}  // namespace

Var attend(Ctx& ctx, const Var& q, const Var& k, const Var& v, int v_col, const Var& shared,
           std::vector<AttendSegment> segments, const AttendParams& p) {
  Var y = ctx.make(ctx.dtype, q.t.rows, int64_t{p.heads} * p.dv);
  Var lse = ctx.tape ? ctx.make_aux(ctx.stat_dtype(), q.t.rows, p.heads) : Var();
  ctx.dev.attend(q.t, k.t, from_col(v.t, v_col), shared.t, segments, p, y.t, lse.t);
  if (!ctx.tape) return y;
  // Per head, with D_t = dy_t · y_t:
  //   dv = Pᵀ · dy,   dS = P ∘ (dy · vᵀ - D) · scale,   dq = dS · [k ; shared],
  //   [dk ; dshared] = dSᵀ · q
  // summed over the heads that share a key or value.
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, q, k, v, v_col, shared,
                       segments = std::move(segments), p, y, lse](const Tensor& dy) {
    GradOut dq = tape->grad_out(q);
    GradOut dk = tape->grad_out(k);
    bool one = k.node == v.node;  // MLA: keys and values are columns of one tensor
    GradOut dv = one ? dk : tape->grad_out(v);
    GradOut dshared = shared.empty() ? GradOut{} : tape->grad_out(shared);
    for (const GradOut* g : {&dq, &dk, &dv}) CHECK(g->accum == Accum::kSet);
    CHECK(dshared.accum == Accum::kSet);
    dev.attend_backward(q.t, k.t, from_col(v.t, v_col), shared.t, segments, p, y.t, lse.t, dy, dq.t,
                        dk.t, from_col(dv.t, v_col), dshared.t);
  });
  return y;
}

}  // namespace wels
