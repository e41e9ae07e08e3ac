// Kernels of the ops on rows: each works on one row (or one run of n elements) and knows nothing of
// tensors or threads. Arrays are indexed by the element type of the operands named in the comment:
// 0 f32, 1 bf16. Arithmetic is f32. An element's result depends on its operands and, for sums, on n
// alone: never on where the row starts or who computes it.
#pragma once
#include <cstdint>

namespace wels {

// One step's constants: keep = 1 - lr·wd, rate = lr / bias1, spread = 1 / bias2.
struct AdamWScalars {
  float beta1, beta2, eps, grad_scale, keep, rate, spread;
};

struct RowKernels {
  // y (+)= x. [x][y]
  void (*copy[2][2])(const void* x, void* y, int64_t n, bool add);
  // n values as blocks of Q8_0, the last one filled up with zeros (device.h, scatter_rows). [x]
  void (*to_q8_0[2])(const void* x, void* blocks, int64_t n);
  // n values of such blocks. [y]
  void (*from_q8_0[2])(const void* blocks, void* y, int64_t n);
  // y = a + b. [a, y][b]
  void (*add[2][2])(const void* a, const void* b, void* y, int64_t n);
  // y (+)= sum over j < k of rows index[j] of x (row_bytes apart), in order; -1 is skipped. [x][y]
  void (*gather_sum[2][2])(const void* x, int64_t row_bytes, const int32_t* index, int64_t k,
                           void* y, int64_t n, bool add);

  // y = x·inv·gain with inv = 1/sqrt(mean(x²) + eps), which is returned. [x][y]
  float (*rms_norm[2][2])(const void* x, const float* gain, float eps, void* y, int64_t n);
  // dx (+)= inv·(gain∘dy - x̂·mean(gain∘dy∘x̂)), dgain += dy∘x̂, x̂ = x·inv. dx, dgain: null: not
  // wanted. [x, dx][dy]
  void (*rms_norm_backward[2][2])(const void* x, const float* gain, float inv, const void* dy,
                                  void* dx, bool add, float* dgain, int64_t n);
  // One head: y (+)= x, its last `rotated` of n columns turned by cos, sin [rotated/2]; inverse: by
  // -sin.  [x, y]
  void (*rope[2])(const void* x, const float* cos, const float* sin, int rotated, bool interleaved,
                  bool inverse, void* y, int64_t n, bool add);
  // y = silu(gate)·up. [all]
  void (*swiglu[2])(const void* gate, const void* up, void* y, int64_t n);
  void (*swiglu_backward[2])(const void* gate, const void* up, const void* dy, void* dgate,
                             void* dup, int64_t n);

  // y = sum over j < k of weight[j] · row slot[j] of x (+ extra, if not null). [all but weight]
  void (*combine[2])(const void* x, int64_t row_bytes, const int32_t* slot, const float* weight,
                     int64_t k, const void* extra, void* y, int64_t n);
  // drow = weight·dy; returns <dy, row>. [all]
  float (*combine_backward[2])(const void* row, float weight, const void* dy, void* drow,
                               int64_t n);

  // s = sigmoid(logits), or their softmax.
  void (*scores)(const float* logits, int64_t n, bool sigmoid, float* s);
  // Indices of the k largest of v by descending value, ties to the lower index; -inf and NaN count
  // as ties for the last places. best [k]: scratch.
  void (*top_k)(const float* v, int64_t n, int k, int32_t* index, float* best);
  float (*sum)(const float* x, int64_t n);
  // y (+)= a·x.
  void (*scale)(float a, const float* x, float* y, int64_t n, bool add);
  // dlogits += factor · d/dlogits of sum_i f_i s_i / sum(s).
  void (*balance_backward)(const float* s, const float* f, int64_t n, float factor, bool sigmoid,
                           float* dlogits);

  // Sum of squares in f64. [x]
  double (*sum_squares[2])(const void* x, int64_t n);
  void (*adamw)(float* w, const float* grad, float* m, float* v, int64_t n, const AdamWScalars& p);
  // y = a·x + b·y.
  void (*axpby)(float a, const float* x, float b, float* y, int64_t n);
};

}  // namespace wels
