// The optimiser's passes over parameters, bound by memory: each array is read and written once.
#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/row_type.h"

namespace wels {
namespace {

bool all_f32(std::initializer_list<const Tensor*> list) {
  return std::all_of(list.begin(), list.end(),
                     [](const Tensor* t) { return t->dtype == DType::kF32; });
}

}  // namespace

// Blocks of fixed size, added in order: the same bits for any number of threads. A contiguous
// tensor is one long row.
double CpuDevice::sum_squares(const Tensor& t) {
  if (!is_row_type(t)) return RefDevice::sum_squares(t);
  constexpr int64_t kBlock = 1 << 14;
  int64_t rows = t.contiguous() ? std::min<int64_t>(t.rows, 1) : t.rows,
          cols = rows == t.rows ? t.cols : t.size();
  int64_t per_row = (cols + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<size_t>(rows * per_row));
  auto kernel = k_->rows->sum_squares[row_type(t)];
  parallel_for(rows * per_row, std::max<int64_t>(1, kChunkElements / std::min(kBlock, cols + 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t b = begin; b < end; ++b) {
                   int64_t c = b % per_row * kBlock;
                   partial[static_cast<size_t>(b)] =
                       kernel(element(t, b / per_row, c), std::min(kBlock, cols - c));
                 }
               });
  double sum = 0;
  for (double x : partial) sum += x;
  return sum;
}

void CpuDevice::adamw(Tensor w, const Tensor& grad, Tensor m, Tensor v, const AdamWParams& p) {
  if (!all_f32({&w, &grad, &m, &v})) return RefDevice::adamw(w, grad, m, v, p);
  AdamWScalars s{.beta1 = p.beta1,
                 .beta2 = p.beta2,
                 .eps = p.eps,
                 .grad_scale = p.grad_scale,
                 .keep = 1 - p.lr * p.weight_decay,
                 .rate = p.lr / p.bias1,
                 .spread = 1 / p.bias2};
  for_elements({&w, &grad, &m, &v}, [&](int64_t r, int64_t c, int64_t n) {
    k_->rows->adamw(w.row<float>(r) + c, grad.row<float>(r) + c, m.row<float>(r) + c,
                    v.row<float>(r) + c, n, s);
  });
}

void CpuDevice::axpby(float a, const Tensor& x, float b, Tensor y) {
  if (!all_f32({&x, &y})) return RefDevice::axpby(a, x, b, y);
  for_elements({&x, &y}, [&](int64_t r, int64_t c, int64_t n) {
    k_->rows->axpby(a, x.row<float>(r) + c, b, y.row<float>(r) + c, n);
  });
}

}  // namespace wels
