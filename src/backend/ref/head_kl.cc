// The output head against a teacher's distribution, one row of logits at a time: kl_row.h has the
// formulas.
#include <algorithm>
#include <numeric>
#include <utility>

#include "backend/ref/kl_row.h"
#include "backend/ref/ref_device.h"
#include "base/threads.h"

namespace wels {
namespace {

// Logits over the temperature. Of a masked row, the named tokens' are kOut: they are in no sum.
constexpr double kOut = -1e30;

template <class R>
std::vector<R> tempered_logits(const R* h, const Mat<R>& w, double temperature) {
  std::vector<R> z(static_cast<size_t>(w.rows));
  for (int64_t v = 0; v < w.rows; ++v) {
    R dot = 0;
    for (int64_t c = 0; c < w.cols; ++c) dot += h[c] * w.row(v)[c];
    z[static_cast<size_t>(v)] = static_cast<R>(dot / static_cast<R>(temperature));
  }
  return z;
}

template <class R>
R log_sum(const std::vector<R>& z) {
  R largest = *std::max_element(z.begin(), z.end()), sum = 0;
  for (R x : z) sum += std::exp(x - largest);
  return largest + std::log(sum);
}

}  // namespace

template <class R>
void RefDevice<R>::top_tokens(const Tensor& h, const Weight& head, double temperature,
                              const TopTokens& top) {
  Mat<R> in = read<R>(h), w = read_weight<R>(head), logp(h.rows, top.k()), tail(h.rows, 1);
  parallel_for(h.rows, rows_per_thread(w.rows * w.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::vector<R> z = tempered_logits(in.row(i), w, temperature);
      R lse = log_sum(z);
      std::vector<int32_t> order(z.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return z[static_cast<size_t>(a)] > z[static_cast<size_t>(b)];
      });
      for (int64_t j = 0; j < top.k(); ++j) {
        bool there = j < w.rows;
        top.id.row<int32_t>(i)[j] = there ? order[static_cast<size_t>(j)] : -1;
        if (there) logp.row(i)[j] = z[static_cast<size_t>(order[static_cast<size_t>(j)])] - lse;
      }
      for (size_t j = static_cast<size_t>(top.k()); j < order.size(); ++j)
        tail.row(i)[0] += std::exp(z[static_cast<size_t>(order[j])] - lse);
    }
  });
  write(logp, top.logp);
  write(tail, top.tail);
}

template <class R>
void RefDevice<R>::token_kl(const Tensor& h, const Weight& head, const TopTokens& teacher,
                            const KlParams& p, Tensor kl, Tensor slope) {
  int64_t k = teacher.k();
  Mat<R> in = read<R>(h), w = read_weight<R>(head), logp = read<R>(teacher.logp),
         tail = read<R>(teacher.tail), out(h.rows, 1), s(h.rows, k + 2);
  parallel_for(h.rows, rows_per_thread(w.rows * w.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (!has_teacher(teacher, i)) continue;
      const int32_t* id = teacher.id.row<int32_t>(i);
      std::vector<R> z = tempered_logits(in.row(i), w, p.temperature);
      for (int64_t j = 0; j < k; ++j) {
        if (id[j] >= 0)
          s.row(i)[j] = std::exchange(z[static_cast<size_t>(id[j])], static_cast<R>(kOut));
      }
      s.row(i)[k + 1] = log_sum(z);
      out.row(i)[0] =
          static_cast<R>(kl_row(id, logp.row(i), tail.row(i)[0], k, p.reverse, s.row(i)));
    }
  });
  write(out, kl);
  if (!slope.empty()) write(s, slope);
}

template <class R>
void RefDevice<R>::token_kl_backward(const Tensor& h, const Weight& head, const TopTokens& teacher,
                                     const KlParams& p, const Tensor& slope, const Tensor& dkl,
                                     Tensor dh, Accum accum, Tensor dhead, Accum dhead_accum) {
  int64_t k = teacher.k();
  Mat<R> in = read<R>(h), w = read_weight<R>(head), s = read<R>(slope), d = read<R>(dkl);
  Mat<R> gh(h.rows, h.cols), gw(w.rows, w.cols);
  for (int64_t i = 0; i < h.rows; ++i) {
    if (!has_teacher(teacher, i)) continue;
    const int32_t* id = teacher.id.row<int32_t>(i);
    std::vector<R> z = tempered_logits(in.row(i), w, p.temperature);
    R bucket = s.row(i)[k], tail_lse = s.row(i)[k + 1];
    for (R& x : z) x = bucket * std::exp(x - tail_lse);
    for (int64_t j = 0; j < k; ++j) {
      if (id[j] >= 0) z[static_cast<size_t>(id[j])] = s.row(i)[j];
    }
    for (int64_t v = 0; v < w.rows; ++v) {
      R dz = d.row(i)[0] / static_cast<R>(p.temperature) * z[static_cast<size_t>(v)];
      for (int64_t c = 0; c < w.cols; ++c) {
        gh.row(i)[c] += dz * w.row(v)[c];
        gw.row(v)[c] += dz * in.row(i)[c];
      }
    }
  }
  if (!dh.empty()) write(gh, dh, accum);
  if (!dhead.empty()) write(gw, dhead, dhead_accum);
}

template class RefDevice<float>;
template class RefDevice<double>;

}  // namespace wels
