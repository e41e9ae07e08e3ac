// What optimisers are made of.
#include "backend/ref/ref_device.h"

namespace wels {

template <class R>
double RefDevice<R>::sum_squares(const Tensor& t) {
  double sum = 0;
  for (double x : read<double>(t).v) sum += x * x;
  return sum;
}

template <class R>
void RefDevice<R>::adamw(Tensor w, const Tensor& grad, Tensor m, Tensor v, const AdamWParams& p) {
  Mat<R> mw = read<R>(w), g = read<R>(grad), m1 = read<R>(m), m2 = read<R>(v);
  R b1 = static_cast<R>(p.beta1), b2 = static_cast<R>(p.beta2), lr = static_cast<R>(p.lr);
  for (size_t i = 0; i < mw.v.size(); ++i) {
    R x = g.v[i] * static_cast<R>(p.grad_scale);
    m1.v[i] = b1 * m1.v[i] + (R(1) - b1) * x;
    m2.v[i] = b2 * m2.v[i] + (R(1) - b2) * x * x;
    R step = (m1.v[i] / static_cast<R>(p.bias1)) /
             (std::sqrt(m2.v[i] / static_cast<R>(p.bias2)) + static_cast<R>(p.eps));
    mw.v[i] = mw.v[i] * (R(1) - lr * static_cast<R>(p.weight_decay)) - lr * step;
  }
  write(mw, w);
  write(m1, m);
  write(m2, v);
}

template <class R>
void RefDevice<R>::axpby(float a, const Tensor& x, float b, Tensor y) {
  Mat<R> mx = read<R>(x), my = read<R>(y);
  for (size_t i = 0; i < mx.v.size(); ++i)
    my.v[i] = static_cast<R>(a) * mx.v[i] + static_cast<R>(b) * my.v[i];
  write(my, y);
}

template class RefDevice<float>;
template class RefDevice<double>;

}  // namespace wels
