// Some rows of x: y[i] = x[index[i]].
#include "nn/ops.h"

namespace wels {

Var select_rows(Ctx& ctx, const Var& x, const std::vector<int32_t>& index) {
  int64_t n = static_cast<int64_t>(index.size());
  Var ids = ctx.make_ids(index);
  Var y = ctx.make(x.t.dtype, n, x.t.cols);
  ctx.dev.gather_rows(x.t, ids.t, y.t);
  if (!ctx.tape) return y;
  // dx[index[i]] = dy[i], and 0 in rows that were not selected.
  std::vector<int32_t> inverse(static_cast<size_t>(x.t.rows), -1);
  for (int64_t i = 0; i < n; ++i)
    inverse[static_cast<size_t>(index[static_cast<size_t>(i)])] = static_cast<int32_t>(i);
  Var back = ctx.make_ids(inverse);
  back.t = Tensor(back.t.data, DType::kI32, x.t.rows, 1);
  ctx.tape->record(y, [&dev = ctx.dev, tape = ctx.tape, x, back](const Tensor& dy) {
    GradOut dx = tape->grad_out(x);
    if (!dx.t.empty()) dev.gather_sum(dy, back.t, dx.t, dx.accum);
  });
  return y;
}

}  // namespace wels
