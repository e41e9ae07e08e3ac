// The tape: reverse-mode differentiation over coarse ops.
//
// An op of nn/ computes its result on the device and, where there is a tape, records one closure
// that knows its backward. The tape replays the closures in reverse. With tape == nullptr the same
// code is inference and keeps nothing. The tape alone owns accumulation: a backward asks for the
// gradient slot of an input and is told whether to set it or to add to it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/device.h"
#include "tensor/pool.h"

namespace wels {

class Tape;

// A tensor in the computation: shares ownership of its memory; `node` is its place on the tape, -1
// if nothing flows back to it.
struct Var {
  Tensor t;
  std::shared_ptr<void> memory;
  int32_t node = -1;
  bool empty() const { return t.empty(); }
};

// Where a backward writes the gradient of one of its inputs; empty tensor: nobody wants it.
struct GradOut {
  Tensor t;
  Accum accum = Accum::kSet;
};

// What an op runs on. Passed by reference everywhere; there are no globals.
struct Ctx {
  Device& dev;
  Pool& pool;
  Tape* tape = nullptr;       // nullptr: inference
  DType dtype = DType::kF32;  // T of the activations: f32, bf16 or f64 (ref<double>)
  bool fp8 = false;           // FP8 matmuls for the weights that take part (V3 §3.3)
  // Recompute each block in the backward instead of keeping its activations.
  bool recompute = false;

  // The residual stream is f32 when activations are bf16: sums over many layers keep their low
  // bits.
  DType residual_dtype() const { return dtype == DType::kBF16 ? DType::kF32 : dtype; }
  // Statistics (lse, inv_rms, routing weights, log-probabilities) are f32, f64 with f64
  // activations.
  DType stat_dtype() const { return dtype == DType::kF64 ? DType::kF64 : DType::kF32; }

  Var make(DType type, int64_t rows, int64_t cols);      // on the tape if there is one
  Var make_aux(DType type, int64_t rows, int64_t cols);  // never differentiated
  Var make_ids(const int32_t* ids, int64_t n);           // i32 [1, n] on the device
  Var make_ids(const std::vector<int32_t>& ids) {
    return make_ids(ids.data(), static_cast<int64_t>(ids.size()));
  }
};

class Tape {
 public:
  Tape(Device& dev, Pool& pool) : dev_(dev), pool_(pool) {}

  int32_t new_node() {
    grads_.emplace_back();
    return static_cast<int32_t>(grads_.size()) - 1;
  }

  // Records the backward of the op that made `out`; it runs only if a gradient reached `out`, which
  // is released after it.
  void record(const Var& out, std::function<void(const Tensor& dout)> backward);
  // The same for an op with two results, either of which may have got no gradient (then zeros are
  // passed).
  void record2(const Var& a, const Var& b,
               std::function<void(const Tensor& da, const Tensor& db)> backward);

  // The gradient slot of x. Take slots into locals, one statement each, in the order in which they
  // are written: the second request for one node (concat(x, x)) must see that the first one has set
  // it.
  GradOut grad_out(const Var& x);
  // Makes the gradient of `out` (whose backward is running) that of x, without a copy if nothing is
  // there yet; else adds it.
  void pass_through(const Var& x, const Var& out);
  // The same for a finished gradient that the op has kept.
  void pass_on(const Var& x, const OwnedTensor& gradient);
  // The gradient that reached x; empty if none.
  Tensor grad(const Var& x) const {
    return x.node < 0 ? Tensor() : grads_[static_cast<size_t>(x.node)].t;
  }
  // Replays everything recorded, newest first, and forgets it. Gradients of leaves (Vars that no
  // recorded op made) stay.
  void backward();

 private:
  Device& dev_;
  Pool& pool_;
  std::vector<OwnedTensor> grads_;
  std::vector<std::function<void()>> steps_;
};

}  // namespace wels
