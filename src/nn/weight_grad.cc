// Where the gradient of a weight goes.
#include "nn/ops.h"

namespace wels {

GradOut weight_grad(Weight& w, int64_t e) {
  if (!w.trainable()) return {};
  GradOut out{w.grad[static_cast<size_t>(e)], w.fresh_grad ? Accum::kSet : Accum::kAdd};
  if (e == w.experts() - 1) w.fresh_grad = false;
  return out;
}

}  // namespace wels
