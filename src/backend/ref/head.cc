// The output head: log-probabilities of targets, one row of logits at a time.
#include <algorithm>
#include <limits>

#include "backend/ref/ref_device.h"
#include "base/threads.h"

namespace wels {
namespace {

// Of row i, divided by the temperature; -infinity for tokens that are not kept.
template <class R>
std::vector<R> logits_of(const R* h, const Mat<R>& w, const Targets& target, int64_t i) {
  const Tensor& kept = target.kept;
  std::vector<R> z(static_cast<size_t>(w.rows), -std::numeric_limits<R>::infinity());
  for (int64_t v = 0; v < w.rows; ++v) {
    if (!kept.empty() && (kept.row<int32_t>(i)[v / 32] >> (v % 32) & 1) == 0) continue;
    R dot = 0;
    for (int64_t c = 0; c < w.cols; ++c) dot += h[c] * w.row(v)[c];
    z[static_cast<size_t>(v)] = dot / static_cast<R>(target.temperature);
  }
  return z;
}

}  // namespace

template <class R>
void RefDevice<R>::token_logp(const Tensor& h, const Weight& head, const Targets& target,
                              Tensor logp, Tensor lse) {
  Mat<R> in = read<R>(h), w = read_weight<R>(head), out(h.rows, 1), log_sum(h.rows, 1);
  parallel_for(h.rows, rows_per_thread(w.rows * w.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int32_t t = target.id.row<int32_t>(0)[i];
      if (t < 0 && !target.kept.empty()) continue;  // perhaps none is kept
      std::vector<R> z = logits_of(in.row(i), w, target, i);
      R largest = *std::max_element(z.begin(), z.end()), sum = 0;
      for (R x : z) sum += std::exp(x - largest);
      log_sum.row(i)[0] = largest + std::log(sum);
      out.row(i)[0] = t < 0 ? R(0) : z[static_cast<size_t>(t)] - log_sum.row(i)[0];
    }
  });
  write(out, logp);
  if (!lse.empty()) write(log_sum, lse);
}

// d logp / d (z_v / T) = [v = target] - softmax(z / T)_v.
template <class R>
void RefDevice<R>::token_logp_backward(const Tensor& h, const Weight& head, const Targets& target,
                                       const Tensor& lse, const Tensor& dlogp, Tensor dh,
                                       Accum accum, Tensor dhead, Accum dhead_accum) {
  Mat<R> in = read<R>(h), w = read_weight<R>(head), log_sum = read<R>(lse), d = read<R>(dlogp);
  Mat<R> gh(h.rows, h.cols), gw(w.rows, w.cols);
  for (int64_t i = 0; i < h.rows; ++i) {
    int32_t t = target.id.row<int32_t>(0)[i];
    if (t < 0) continue;
    std::vector<R> z = logits_of(in.row(i), w, target, i);
    R up = d.row(i)[0] / static_cast<R>(target.temperature);
    for (int64_t v = 0; v < w.rows; ++v) {
      R dz =
          up * ((v == t ? R(1) : R(0)) - std::exp(z[static_cast<size_t>(v)] - log_sum.row(i)[0]));
      for (int64_t c = 0; c < w.cols; ++c) {
        gh.row(i)[c] += dz * w.row(v)[c];
        gw.row(v)[c] += dz * in.row(i)[c];
      }
    }
  }
  if (!dh.empty()) write(gh, dh, accum);
  if (!dhead.empty()) write(gw, dhead, dhead_accum);
}

// One after the other, by whatever device this is.
template <class R>
void RefDevice<R>::token_logp_and_gradient(const Tensor& h, const Weight& head,
                                           const Targets& target, const Tensor& dlogp, Tensor logp,
                                           Tensor dh, Tensor dhead, Accum dhead_accum) {
  Mat<R> log_sum(h.rows, 1);
  Tensor lse(log_sum.v.data(), dtype_of<R>::value, h.rows, 1);
  this->token_logp(h, head, target, logp, lse);
  this->token_logp_backward(h, head, target, lse, dlogp, dh, Accum::kSet, dhead, dhead_accum);
}

template class RefDevice<float>;
template class RefDevice<double>;

}  // namespace wels
