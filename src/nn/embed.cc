// Embedding: y = w[ids].
#include "nn/ops.h"

namespace wels {

Var embed(Ctx& ctx, const Var& ids, Weight& w) {
  Var y = ctx.make(ctx.residual_dtype(), ids.t.cols, w.cols);
  ctx.dev.embed(ids.t, w, y.t);
  if (ctx.tape && w.trainable()) {
    // dw[ids[i]] += dy[i].
    ctx.tape->record(y, [&dev = ctx.dev, ids, &w](const Tensor& dy) {
      GradOut dw = weight_grad(w);
      if (dw.accum == Accum::kSet) dev.zero(dw.t);
      dev.embed_backward(ids.t, dy, dw.t);
    });
  }
  return y;
}

}  // namespace wels
