// Causal attention: softmax(scale · q·k) over the visible keys, in two passes (largest score
// first).
#include <algorithm>

#include "backend/ref/ref_device.h"
#include "base/threads.h"

namespace wels {
namespace {

// One query's probabilities over `n` keys. key(j, c) gives column c of key j. Returns the
// log-sum-exp.
template <class R, class Key>
R probabilities(const R* q, int width, int64_t n, R scale, Key&& key, std::vector<R>& p) {
  p.assign(static_cast<size_t>(n), R(0));
  R largest = -INFINITY;
  for (int64_t j = 0; j < n; ++j) {
    R dot = 0;
    for (int c = 0; c < width; ++c) dot += q[c] * key(j, c);
    p[static_cast<size_t>(j)] = dot * scale;
    largest = std::max(largest, dot * scale);
  }
  R sum = 0;
  for (R& s : p) sum += s = std::exp(s - largest);
  for (R& s : p) s /= sum;
  return largest + std::log(sum);
}

}  // namespace

template <class R>
void RefDevice<R>::attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
                          std::span<const AttendSegment> segments, const AttendParams& p, Tensor y,
                          Tensor lse) {
  Mat<R> mq = read<R>(q), mk = read<R>(k), mv = read<R>(v), ms = read<R>(shared),
         out(y.rows, y.cols);
  Mat<R> log_sum(y.rows, p.heads);
  int width = p.dk + p.dr, share = p.heads / p.kv_heads;
  for (const AttendSegment& s : segments) {
    int64_t grain = rows_per_thread(s.k_rows * p.heads * (width + p.dv));
    parallel_for(s.q_rows, grain, [&](int64_t begin, int64_t end) {
      std::vector<R> prob;
      for (int64_t i = begin; i < end; ++i) {
        int64_t visible = s.k_rows - s.q_rows + i + 1;
        for (int h = 0; h < p.heads; ++h) {
          int64_t k0 = static_cast<int64_t>(h / share) * p.k_step,
                  v0 = static_cast<int64_t>(h / share) * p.v_step;
          auto key = [&](int64_t j, int c) {
            return c < p.dk ? mk.row(s.k_begin + j)[k0 + c] : ms.row(s.k_begin + j)[c - p.dk];
          };
          log_sum.row(s.q_begin + i)[h] =
              probabilities(mq.row(s.q_begin + i) + h * width, width, visible,
                            static_cast<R>(p.scale), key, prob);
          R* to = out.row(s.q_begin + i) + static_cast<int64_t>(h) * p.dv;
          for (int64_t j = 0; j < visible; ++j) {
            for (int c = 0; c < p.dv; ++c)
              to[c] += prob[static_cast<size_t>(j)] * mv.row(s.k_begin + j)[v0 + c];
          }
        }
      }
    });
  }
  write(out, y);
  if (!lse.empty()) write(log_sum, lse);
}

// With P the probabilities and D = Σ_c dy·y:  dv += Pᵀdy,  dS = P∘(dy·vᵀ - D)·scale,  dq = dS·k, dk
// += dSᵀ·q.
template <class R>
void RefDevice<R>::attend_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Tensor& shared, std::span<const AttendSegment> segments,
                                   const AttendParams& p, const Tensor& y, const Tensor& lse,
                                   const Tensor& dy, Tensor dq, Tensor dk, Tensor dv,
                                   Tensor dshared) {
  Mat<R> mq = read<R>(q), mk = read<R>(k), mv = read<R>(v), ms = read<R>(shared), md = read<R>(dy),
         my = read<R>(y);
  Mat<R> gq(q.rows, q.cols), gk(k.rows, k.cols), gv(v.rows, v.cols), gs(shared.rows, shared.cols);
  std::vector<R> prob;
  int width = p.dk + p.dr, share = p.heads / p.kv_heads;
  R scale = static_cast<R>(p.scale);
  for (const AttendSegment& s : segments) {
    for (int64_t i = 0; i < s.q_rows; ++i) {
      int64_t visible = s.k_rows - s.q_rows + i + 1, row = s.q_begin + i;
      for (int h = 0; h < p.heads; ++h) {
        int64_t k0 = static_cast<int64_t>(h / share) * p.k_step,
                v0 = static_cast<int64_t>(h / share) * p.v_step;
        auto key = [&](int64_t j, int c) {
          return c < p.dk ? mk.row(s.k_begin + j)[k0 + c] : ms.row(s.k_begin + j)[c - p.dk];
        };
        const R* from = mq.row(row) + h * width;
        const R* d = md.row(row) + static_cast<int64_t>(h) * p.dv;
        const R* o = my.row(row) + static_cast<int64_t>(h) * p.dv;
        probabilities(from, width, visible, scale, key, prob);
        R total = 0;
        for (int c = 0; c < p.dv; ++c) total += d[c] * o[c];
        for (int64_t j = 0; j < visible; ++j) {
          R pj = prob[static_cast<size_t>(j)], dp = 0;
          for (int c = 0; c < p.dv; ++c) {
            dp += d[c] * mv.row(s.k_begin + j)[v0 + c];
            gv.row(s.k_begin + j)[v0 + c] += pj * d[c];
          }
          R ds = pj * (dp - total) * scale;
          for (int c = 0; c < width; ++c) {
            gq.row(row)[h * width + c] += ds * key(j, c);
            (c < p.dk ? gk.row(s.k_begin + j)[k0 + c] : gs.row(s.k_begin + j)[c - p.dk]) +=
                ds * from[c];
          }
        }
      }
    }
  }
  // Keys and values may be columns of one tensor: write head by head what belongs to each.
  auto write_heads = [&](const Mat<R>& g, Tensor to, int step, int width_of_head) {
    for (int h = 0; h < p.kv_heads; ++h) {
      Mat<R> part(g.rows, width_of_head);
      for (int64_t r = 0; r < g.rows; ++r) {
        std::copy_n(g.row(r) + static_cast<int64_t>(h) * step, width_of_head, part.row(r));
      }
      write(part, to.col_range(static_cast<int64_t>(h) * step, width_of_head));
    }
  };
  if (!dq.empty()) write(gq, dq);
  if (!dk.empty()) write_heads(gk, dk, p.k_step, p.dk);
  if (!dv.empty()) write_heads(gv, dv, p.v_step, p.dv);
  if (!dshared.empty()) write(gs, dshared);
}

template <class R>
void RefDevice<R>::attend_cached(const Tensor& q, const Tensor& pool, int page_rows,
                                 std::span<const CachedSegment> segments, const AttendParams& p,
                                 int k_col, int v_col, Tensor y) {
  Mat<R> mq = read<R>(q), out(y.rows, y.cols);
  std::vector<R> prob;
  int width = p.dk + p.dr, share = p.heads / p.kv_heads;
  for (const CachedSegment& s : segments) {
    Mat<R> rows(s.k_rows, pool.cols);
    for (int64_t j = 0; j < s.k_rows; ++j) {
      int64_t at = static_cast<int64_t>(s.pages[static_cast<size_t>(j / page_rows)]) * page_rows +
                   j % page_rows;
      Mat<R> one = read<R>(pool.row_range(at, 1));
      std::copy_n(one.v.data(), pool.cols, rows.row(j));
    }
    for (int64_t i = 0; i < s.q_rows; ++i) {
      int64_t visible = s.k_rows - s.q_rows + i + 1;
      for (int h = 0; h < p.heads; ++h) {
        int64_t k0 = k_col + static_cast<int64_t>(h / share) * p.k_step;
        int64_t v0 = v_col + static_cast<int64_t>(h / share) * p.v_step;
        int64_t shared = p.shared_col < 0 ? k0 + p.dk : p.shared_col;
        auto key = [&](int64_t j, int c) {
          return rows.row(j)[c < p.dk ? k0 + c : shared + c - p.dk];
        };
        probabilities(mq.row(s.q_begin + i) + h * width, width, visible, static_cast<R>(p.scale),
                      key, prob);
        R* to = out.row(s.q_begin + i) + static_cast<int64_t>(h) * p.dv;
        for (int64_t j = 0; j < visible; ++j) {
          for (int c = 0; c < p.dv; ++c)
            to[c] += prob[static_cast<size_t>(j)] * rows.row(j)[v0 + c];
        }
      }
    }
  }
  write(out, y);
}

template class RefDevice<float>;
template class RefDevice<double>;

}  // namespace wels
