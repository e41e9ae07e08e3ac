// Routing (V3 eq. 12-20), the counting sort of rows by expert, and the weighted sum of their
// results.
#include <algorithm>
#include <numeric>

#include "backend/ref/ref_device.h"

namespace wels {
namespace {

// Affinities of one row: sigmoid of each logit (V3) or softmax over all (V2).
template <class R>
std::vector<R> scores(const R* logits, const RouteParams& p) {
  std::vector<R> s(logits, logits + p.experts);
  if (p.sigmoid) {
    for (R& x : s) x = R(1) / (R(1) + std::exp(-x));
    return s;
  }
  R largest = *std::max_element(s.begin(), s.end()), sum = 0;
  for (R& x : s) sum += x = std::exp(x - largest);
  for (R& x : s) x /= sum;
  return s;
}

// The indices of the k largest, by descending value, ties to the lower index. Distinct even where
// values are NaN.
template <class R>
std::vector<int> largest(const std::vector<R>& v, int k) {
  CHECK(k <= static_cast<int>(v.size()));
  std::vector<int> order;
  std::vector<bool> taken(v.size());
  for (int j = 0; j < k; ++j) {
    size_t best = v.size();
    for (size_t i = 0; i < v.size(); ++i) {
      if (!taken[i] && (best == v.size() || v[i] > v[best])) best = i;
    }
    taken[best] = true;
    order.push_back(static_cast<int>(best));
  }
  return order;
}

// Sets the selection scores of experts outside the best groups to -infinity.
template <class R>
void limit_groups(std::vector<R>& select, const RouteParams& p) {
  if (p.top_groups >= p.groups) return;
  int size = p.experts / p.groups;
  std::vector<R> group(static_cast<size_t>(p.groups));
  for (int g = 0; g < p.groups; ++g) {
    std::vector<R> of(select.begin() + g * size, select.begin() + (g + 1) * size);
    for (int i : largest(of, p.group_top2 && size > 1 ? 2 : 1))
      group[static_cast<size_t>(g)] += of[static_cast<size_t>(i)];
  }
  std::vector<int> best = largest(group, p.top_groups);
  for (int e = 0; e < p.experts; ++e) {
    if (std::find(best.begin(), best.end(), e / size) == best.end())
      select[static_cast<size_t>(e)] = -INFINITY;
  }
}

// Gradient of scores() with respect to the logits, added to out.
template <class R>
void scores_backward(const std::vector<R>& s, const std::vector<R>& ds, const RouteParams& p,
                     R* out) {
  R dot = 0;
  if (!p.sigmoid) {
    for (size_t e = 0; e < s.size(); ++e) dot += s[e] * ds[e];
  }
  for (size_t e = 0; e < s.size(); ++e)
    out[e] += p.sigmoid ? ds[e] * s[e] * (R(1) - s[e]) : s[e] * (ds[e] - dot);
}

// One sequence's balance: f_i = e/(k·T)·#{t: i among the k largest raw scores}, P_i = mean over t
// of s_i/Σs.
template <class R>
struct Balance {
  std::vector<R> f, share;
  std::vector<std::vector<R>> s;  // raw scores per row
  Balance(const Mat<R>& logits, const AttendSegment& seg, const RouteParams& p)
      : f(static_cast<size_t>(p.experts)), share(static_cast<size_t>(p.experts)) {
    R rows = static_cast<R>(seg.q_rows);
    for (int64_t t = 0; t < seg.q_rows; ++t) {
      s.push_back(scores(logits.row(seg.q_begin + t), p));
      R sum = std::accumulate(s.back().begin(), s.back().end(), R(0));
      for (size_t e = 0; e < f.size(); ++e) share[e] += s.back()[e] / sum / rows;
      for (int e : largest(s.back(), p.top_k)) {
        f[static_cast<size_t>(e)] += static_cast<R>(p.experts) / (static_cast<R>(p.top_k) * rows);
      }
    }
  }
};

}  // namespace

template <class R>
void RefDevice<R>::route(const Tensor& logits, const Tensor& bias, const Tensor& given,
                         const RouteParams& p, Tensor expert, Tensor weight, Tensor load) {
  Mat<R> in = read<R>(logits), b = read<R>(bias), w(weight.rows, weight.cols);
  int32_t* count = load.row<int32_t>(0);
  std::fill_n(count, p.experts, 0);
  for (int64_t t = 0; t < logits.rows; ++t) {
    std::vector<R> s = scores(in.row(t), p), select = s;
    for (size_t e = 0; e < b.v.size(); ++e) select[e] += b.v[e];
    limit_groups(select, p);
    std::vector<int> chosen = largest(select, p.top_k);
    if (const int32_t* own = given.empty() ? nullptr : given.row<int32_t>(t); own && own[0] >= 0)
      chosen.assign(own, own + p.top_k);
    R sum = 0;
    for (int e : chosen) sum += s[static_cast<size_t>(e)];
    for (int j = 0; j < p.top_k; ++j) {
      int e = chosen[static_cast<size_t>(j)];
      expert.row<int32_t>(t)[j] = e;
      ++count[e];
      w.row(t)[j] =
          s[static_cast<size_t>(e)] / (p.normalize ? sum : R(1)) * static_cast<R>(p.scale);
    }
  }
  write(w, weight);
}

template <class R>
void RefDevice<R>::route_backward(const Tensor& logits, const Tensor& expert, const Tensor&,
                                  const Tensor& dweight, const RouteParams& p, Tensor dlogits) {
  Mat<R> in = read<R>(logits), dw = read<R>(dweight), out(dlogits.rows, dlogits.cols);
  for (int64_t t = 0; t < logits.rows; ++t) {
    std::vector<R> s = scores(in.row(t), p), ds(s.size());
    const int32_t* chosen = expert.row<int32_t>(t);
    R sum = 0, dot = 0;
    for (int j = 0; j < p.top_k; ++j) {
      sum += s[static_cast<size_t>(chosen[j])];
      dot += dw.row(t)[j] * s[static_cast<size_t>(chosen[j])];
    }
    for (int j = 0; j < p.top_k; ++j) {
      R d = p.normalize ? (dw.row(t)[j] - dot / sum) / sum : dw.row(t)[j];
      ds[static_cast<size_t>(chosen[j])] += d * static_cast<R>(p.scale);
    }
    scores_backward(s, ds, p, out.row(t));
  }
  write(out, dlogits);
}

template <class R>
double RefDevice<R>::balance_loss(const Tensor& logits, std::span<const AttendSegment> segments,
                                  const RouteParams& p) {
  Mat<R> in = read<R>(logits);
  double loss = 0;
  for (const AttendSegment& seg : segments) {
    Balance<R> b(in, seg, p);
    for (size_t e = 0; e < b.f.size(); ++e) loss += static_cast<double>(b.f[e] * b.share[e]);
  }
  return loss;
}

template <class R>
void RefDevice<R>::balance_loss_backward(const Tensor& logits,
                                         std::span<const AttendSegment> segments,
                                         const RouteParams& p, float factor, Tensor dlogits) {
  Mat<R> in = read<R>(logits), out(dlogits.rows, dlogits.cols);
  for (const AttendSegment& seg : segments) {
    Balance<R> b(in, seg, p);
    for (int64_t t = 0; t < seg.q_rows; ++t) {
      const std::vector<R>& s = b.s[static_cast<size_t>(t)];
      R sum = std::accumulate(s.begin(), s.end(), R(0)), dot = 0;
      for (size_t e = 0; e < s.size(); ++e) dot += b.f[e] * s[e] / sum;
      std::vector<R> ds(s.size());  // d/ds_e of Σ_i f_i s_i/Σs, over T rows
      for (size_t e = 0; e < s.size(); ++e) {
        ds[e] = static_cast<R>(factor) * (b.f[e] - dot) / sum / static_cast<R>(seg.q_rows);
      }
      scores_backward(s, ds, p, out.row(seg.q_begin + t));
    }
  }
  write(out, dlogits, Accum::kAdd);
}

template <class R>
void RefDevice<R>::dispatch(const Tensor& expert, int experts, Tensor offsets, Tensor token_of,
                            Tensor slot_of) {
  int32_t* start = offsets.row<int32_t>(0);
  std::fill_n(start, experts + 1, 0);
  for (int64_t t = 0; t < expert.rows; ++t) {
    for (int64_t j = 0; j < expert.cols; ++j) ++start[expert.row<int32_t>(t)[j] + 1];
  }
  for (int e = 0; e < experts; ++e) start[e + 1] += start[e];
  std::vector<int32_t> next(start, start + experts);
  for (int64_t t = 0; t < expert.rows; ++t) {
    for (int64_t j = 0; j < expert.cols; ++j) {
      int32_t slot = next[static_cast<size_t>(expert.row<int32_t>(t)[j])]++;
      token_of.row<int32_t>(0)[slot] = static_cast<int32_t>(t);
      slot_of.row<int32_t>(t)[j] = slot;
    }
  }
}

template <class R>
void RefDevice<R>::combine(const Tensor& rows, const Tensor& slot_of, const Tensor& weight,
                           const Tensor& extra, Tensor y) {
  Mat<R> in = read<R>(rows), w = read<R>(weight), out(y.rows, y.cols);
  if (!extra.empty()) out = read<R>(extra);
  for (int64_t t = 0; t < y.rows; ++t) {
    for (int64_t j = 0; j < slot_of.cols; ++j) {
      const R* from = in.row(slot_of.row<int32_t>(t)[j]);
      for (int64_t c = 0; c < y.cols; ++c) out.row(t)[c] += w.row(t)[j] * from[c];
    }
  }
  write(out, y);
}

template <class R>
void RefDevice<R>::combine_backward(const Tensor& rows, const Tensor& slot_of, const Tensor& weight,
                                    const Tensor& dy, Tensor drows, Tensor dweight) {
  Mat<R> in = read<R>(rows), w = read<R>(weight), d = read<R>(dy);
  Mat<R> out(drows.rows, drows.cols), dw(dweight.rows, dweight.cols);
  for (int64_t t = 0; t < dy.rows; ++t) {
    for (int64_t j = 0; j < slot_of.cols; ++j) {
      int32_t slot = slot_of.row<int32_t>(t)[j];
      for (int64_t c = 0; c < dy.cols; ++c) {
        out.row(slot)[c] = w.row(t)[j] * d.row(t)[c];
        dw.row(t)[j] += d.row(t)[c] * in.row(slot)[c];
      }
    }
  }
  write(out, drows);
  write(dw, dweight);
}

template class RefDevice<float>;
template class RefDevice<double>;

}  // namespace wels
