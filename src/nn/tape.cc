#include "nn/tape.h"

#include <cstring>

namespace wels {

Var Ctx::make(DType type, int64_t rows, int64_t cols) {
  Var v = make_aux(type, rows, cols);
  if (tape) v.node = tape->new_node();
  return v;
}

Var Ctx::make_aux(DType type, int64_t rows, int64_t cols) {
  OwnedTensor o = make_tensor(pool, type, rows, cols);
  return {o.t, std::move(o.memory), -1};
}

Var Ctx::make_ids(const int32_t* ids, int64_t n) {
  Var v = make_aux(DType::kI32, 1, n);
  dev.upload(ids, v.t);
  return v;
}

GradOut Tape::grad_out(const Var& x) {
  if (x.node < 0) return {};
  OwnedTensor& slot = grads_[static_cast<size_t>(x.node)];
  if (!slot.t.empty()) return {slot.t, Accum::kAdd};
  slot = make_tensor(pool_, x.t.dtype, x.t.rows, x.t.cols);
  return {slot.t, Accum::kSet};
}

void Tape::pass_through(const Var& x, const Var& out) {
  pass_on(x, grads_[static_cast<size_t>(out.node)]);
}

void Tape::pass_on(const Var& x, const OwnedTensor& gradient) {
  if (x.node < 0) return;
  OwnedTensor& to = grads_[static_cast<size_t>(x.node)];
  CHECK(x.t.dtype == gradient.t.dtype);
  if (to.t.empty()) {
    to = gradient;
  } else {
    dev_.copy(gradient.t, to.t, Accum::kAdd);
  }
}

void Tape::record(const Var& out, std::function<void(const Tensor&)> backward) {
  steps_.push_back([this, node = static_cast<size_t>(out.node), backward = std::move(backward)] {
    if (grads_[node].t.empty()) return;
    backward(grads_[node].t);
    grads_[node] = {};
  });
}

void Tape::record2(const Var& a, const Var& b,
                   std::function<void(const Tensor&, const Tensor&)> backward) {
  steps_.push_back([this, a, b, backward = std::move(backward)] {
    OwnedTensor& da = grads_[static_cast<size_t>(a.node)];
    OwnedTensor& db = grads_[static_cast<size_t>(b.node)];
    if (da.t.empty() && db.t.empty()) return;
    for (const Var* v : {&a, &b}) {
      GradOut g = grad_out(*v);
      if (g.accum == Accum::kSet) dev_.zero(g.t);
    }
    backward(da.t, db.t);
    da = {};
    db = {};
  });
}

void Tape::backward() {
  while (!steps_.empty()) {
    auto step = std::move(steps_.back());
    steps_.pop_back();
    step();
  }
}

}  // namespace wels
