// Attention, backward: probabilities are made again from lse, then five products per pair of tiles.
//
//   P = exp(scale·q·k - lse)   delta = <dy, y>   dP = dy·vᵀ   dS = P∘(dP - delta)
//   dv += Pᵀ·dy   dk += scale·dSᵀ·q   dq += scale·dS·k
//
// A kv head of a segment is worked on by one thread: key tiles outside, whose dk and dv stay in
// cache, column tiles inside, packed once for all key tiles. The gradient of the key columns that
// all heads share is made per head and summed in the order of heads, whoever made them, so no bit
// depends on the number of threads. Source: Dao et al. 2022, algorithm 4.
#include <algorithm>

#include "backend/cpu/attend_work.h"
#include "backend/cpu/cpu_device.h"
#include "backend/cpu/isa/kernels.h"
#include "base/threads.h"

namespace wels {
namespace {

constexpr float kNever = 1e30f;  // lse2 of the columns that fill up a tile: probability 0

struct BackwardWork {
  float *q, *q_pairs, *dy, *dy_pairs, *lse2, *delta, *dq;  // per column tile, all tiles
  float *rows, *rows2, *k, *k_pairs, *v, *dk, *dv, *scratch, *limit, *shared;
  int64_t q_step, q_pairs_step, dy_step, dy_pairs_step, dq_step;
  BackwardWork(Carver& c, const AttendShape& a, const int64_t& tiles,
               const int64_t& shared_floats) {
    const int64_t n = kAttendCols;
    q_step = n * a.dk_units;
    q_pairs_step = n / a.kernels->pair * a.dk_pad;
    dy_step = n * a.dv_units;
    dy_pairs_step = n / a.kernels->pair * a.dv_pad;
    dq_step = n * a.dk_pad;
    q = c.take(tiles * q_step);
    q_pairs = c.take(tiles * q_pairs_step);
    dy = c.take(tiles * dy_step);
    dy_pairs = c.take(tiles * dy_pairs_step);
    lse2 = c.take(tiles * n);
    delta = c.take(tiles * n);
    dq = c.take(tiles * dq_step);
    rows = c.take(n * std::max(a.k_ld, a.v_ld));
    rows2 = c.take(n * a.v_ld);
    k = c.take(n * a.k_ld);
    k_pairs = c.take(n / a.kernels->pair * a.dk_pad);
    v = c.take(n * a.v_ld);
    dk = c.take(n * a.dk_pad);
    dv = c.take(n * a.dv_pad);
    scratch = c.take(5 * n * n);
    limit = c.take(n);
    shared = c.take(shared_floats);
  }
};

// The arguments of a call, and what follows from them.
struct Call {
  const Tensor &q, &k, &v, &shared, &y, &lse, &dy, &dq, &dk, &dv;
  const AttendParams& p;
  const AttendShape& a;
};

void pack_columns(const Call& x, const AttendSegment& s, int head, const BackwardWork& w) {
  const AttendShape& a = x.a;
  const int64_t columns = s.q_rows * a.group;
  const void *q_rows[kAttendCols], *y_rows[kAttendCols], *dy_rows[kAttendCols];
  for (int64_t t = 0; t * kAttendCols < columns; ++t) {
    const int n = static_cast<int>(std::min<int64_t>(kAttendCols, columns - t * kAttendCols));
    float *lse2 = w.lse2 + t * kAttendCols, *delta = w.delta + t * kAttendCols;
    std::fill_n(lse2, kAttendCols, kNever);
    std::fill_n(delta, kAttendCols, 0.0f);
    for (int i = 0; i < n; ++i) {
      const int64_t c = t * kAttendCols + i, row = s.q_begin + c / a.group, h = head + c % a.group;
      q_rows[i] = element(x.q, row, h * a.dk);
      y_rows[i] = element(x.y, row, h * a.dv);
      dy_rows[i] = element(x.dy, row, h * a.dv);
      lse2[i] = x.lse.row<float>(row)[h] * 1.44269504f;
    }
    a.kernels->rows[a.type](q_rows, a.dk, nullptr, 0, n, w.rows, a.k_ld);
    a.kernels->transpose(w.rows, a.k_ld, n, a.dk_units, w.q + t * w.q_step, kAttendCols);
    a.kernels->pairs(w.rows, a.k_ld, n, a.dk_pad, w.q_pairs + t * w.q_pairs_step);
    a.kernels->rows[a.type](dy_rows, a.dv, nullptr, 0, n, w.rows, a.v_ld);
    a.kernels->transpose(w.rows, a.v_ld, n, a.dv_units, w.dy + t * w.dy_step, kAttendCols);
    a.kernels->pairs(w.rows, a.v_ld, n, a.dv_pad, w.dy_pairs + t * w.dy_pairs_step);
    a.kernels->rows[a.type](y_rows, a.dv, nullptr, 0, n, w.rows2, a.v_ld);
    a.kernels->row_dots(w.rows, w.rows2, a.v_ld, n, delta);
  }
}

// dk and dv of keys [key, key + n_keys) and their part of dq.
void key_tile(const Call& x, const AttendSegment& s, int kv_head, int64_t key, int n_keys,
              const BackwardWork& w) {
  const AttendShape& a = x.a;
  const void *k_rows[kAttendKeys], *shared_rows[kAttendKeys], *v_rows[kAttendKeys];
  for (int j = 0; j < n_keys; ++j) {
    k_rows[j] = element(x.k, s.k_begin + key + j, static_cast<int64_t>(kv_head) * x.p.k_step);
    v_rows[j] = element(x.v, s.k_begin + key + j, static_cast<int64_t>(kv_head) * x.p.v_step);
    if (x.p.dr > 0) shared_rows[j] = element(x.shared, s.k_begin + key + j, 0);
  }
  a.kernels->rows[a.type](k_rows, x.p.dk, x.p.dr > 0 ? shared_rows : nullptr, x.p.dr, n_keys, w.k,
                          a.k_ld);
  a.kernels->pairs(w.k, a.k_ld, n_keys, a.dk_pad, w.k_pairs);
  a.kernels->rows[a.type](v_rows, a.dv, nullptr, 0, n_keys, w.v, a.v_ld);

  const int64_t columns = s.q_rows * a.group, past = s.k_rows - s.q_rows;
  const int64_t first = std::max<int64_t>(0, (key - past) * a.group) /
                        kAttendCols;  // column c sees past + c/group + 1 keys
  for (int64_t t = first; t * kAttendCols < columns; ++t) {
    const int64_t c0 = t * kAttendCols;
    const int n = static_cast<int>(std::min<int64_t>(kAttendCols, columns - c0));
    for (int i = 0; i < kAttendCols; ++i) {
      const int64_t seen = past + (c0 + std::min(i, n - 1)) / a.group + 1 - key;
      w.limit[i] = static_cast<float>(std::clamp<int64_t>(seen, 0, n_keys));
    }
    a.kernels->backward_tile({w.q + t * w.q_step,
                              w.q_pairs + t * w.q_pairs_step,
                              w.dy + t * w.dy_step,
                              w.dy_pairs + t * w.dy_pairs_step,
                              w.k,
                              w.k_pairs,
                              w.v,
                              w.limit,
                              w.lse2 + c0,
                              w.delta + c0,
                              a.dk_units,
                              a.dv_units,
                              a.k_ld,
                              a.v_ld,
                              a.dk_pad,
                              a.dv_pad,
                              n,
                              n_keys,
                              a.scale2,
                              w.scratch,
                              w.dq + t * w.dq_step,
                              w.dk,
                              w.dv,
                              key == 0,
                              t == first});
  }
  void* out[kAttendKeys];
  const float one = 1.0f;
  if (!x.dk.empty()) {
    for (int j = 0; j < n_keys; ++j) {
      out[j] = element_out(x.dk, s.k_begin + key + j, static_cast<int64_t>(kv_head) * x.p.k_step);
    }
    a.kernels->store_rows(w.dk, a.dk_pad, n_keys, x.p.dk, &a.scale, 0, out);
  }
  if (!x.dv.empty()) {
    for (int j = 0; j < n_keys; ++j) {
      out[j] = element_out(x.dv, s.k_begin + key + j, static_cast<int64_t>(kv_head) * x.p.v_step);
    }
    a.kernels->store_rows(w.dv, a.dv_pad, n_keys, a.dv, &one, 0, out);
  }
}

// All gradients of one kv head of one segment. shared_sum [k_rows, dr] f32 (null: none): this
// head's part is set or added, without the scale.
void backward_head(const Call& x, const AttendSegment& s, int kv_head, const BackwardWork& w,
                   float* shared_sum, Accum accum) {
  const AttendShape& a = x.a;
  pack_columns(x, s, kv_head * a.group, w);
  for (int64_t key = 0; key < s.k_rows; key += kAttendKeys) {
    const int n_keys = static_cast<int>(std::min<int64_t>(kAttendKeys, s.k_rows - key));
    key_tile(x, s, kv_head, key, n_keys, w);
    for (int j = 0; shared_sum && j < n_keys; ++j) {
      float* to = shared_sum + (key + j) * x.p.dr;
      const float* from = w.dk + static_cast<int64_t>(j) * a.dk_pad + x.p.dk;
      for (int c = 0; c < x.p.dr; ++c) to[c] = accum == Accum::kSet ? from[c] : to[c] + from[c];
    }
  }
  if (x.dq.empty()) return;
  const int64_t columns = s.q_rows * a.group;
  void* out[kAttendCols];
  for (int64_t c0 = 0; c0 < columns; c0 += kAttendCols) {
    const int n = static_cast<int>(std::min<int64_t>(kAttendCols, columns - c0));
    for (int i = 0; i < n; ++i) {
      const int64_t c = c0 + i;
      out[i] = element_out(x.dq, s.q_begin + c / a.group, (kv_head * a.group + c % a.group) * a.dk);
    }
    a.kernels->store_rows(w.dq + c0 / kAttendCols * w.dq_step, a.dk_pad, n, a.dk, &a.scale, 0, out);
  }
}

void write_shared(const AttendShape& a, const AttendSegment& s, int64_t begin, int64_t end, int dr,
                  const float* sum, const Tensor& dshared) {
  for (int64_t j = begin; j < end; ++j) {
    void* out = element_out(dshared, s.k_begin + j, 0);
    a.kernels->store_rows(sum + j * dr, dr, 1, dr, &a.scale, 0, &out);
  }
}

// Every key may belong to one segment only: gradients are set, not added.
void check_disjoint(std::span<const AttendSegment> segments) {
  std::vector<std::pair<int64_t, int64_t>> keys;
  for (const AttendSegment& s : segments) {
    CHECK(s.q_rows <= s.k_rows);
    keys.push_back({s.k_begin, s.k_begin + s.k_rows});
  }
  std::sort(keys.begin(), keys.end());
  for (size_t i = 1; i < keys.size(); ++i) CHECK(keys[i - 1].second <= keys[i].first);
}

}  // namespace

void CpuDevice::attend_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                const Tensor& shared, std::span<const AttendSegment> segments,
                                const AttendParams& p, const Tensor& y, const Tensor& lse,
                                const Tensor& dy, Tensor dq, Tensor dk, Tensor dv, Tensor dshared) {
  if (q.dtype != DType::kBF16 && q.dtype != DType::kF32) {
    return RefDevice<float>::attend_backward(q, k, v, shared, segments, p, y, lse, dy, dq, dk, dv,
                                             dshared);
  }
  check_attend(q, p);
  CHECK(k.dtype == q.dtype && v.dtype == q.dtype && y.dtype == q.dtype && dy.dtype == q.dtype);
  check_disjoint(segments);
  const AttendShape a(*k_->attend, q.dtype, p);
  const Call call{q, k, v, shared, y, lse, dy, dq, dk, dv, p, a};
  const bool want_shared = p.dr > 0 && !dshared.empty();

  std::vector<AttendSegment> live;
  int64_t q_rows = 0, k_rows = 0;
  for (const AttendSegment& s : segments) {
    if (s.q_rows == 0) continue;
    live.push_back(s);
    q_rows += s.q_rows;
    k_rows += s.k_rows;
  }
  if (q_rows < q.rows && !dq.empty()) zero(dq);
  if (k_rows < k.rows) {  // keys that no query sees
    for (int h = 0; h < p.kv_heads; ++h) {
      if (!dk.empty()) zero(dk.col_range(static_cast<int64_t>(h) * p.k_step, p.dk));
      if (!dv.empty()) zero(dv.col_range(static_cast<int64_t>(h) * p.v_step, p.dv));
    }
    if (want_shared) zero(dshared);
  }
  std::stable_sort(live.begin(), live.end(), [](const AttendSegment& x, const AttendSegment& y) {
    return x.q_rows * x.k_rows > y.q_rows * y.k_rows;
  });
  auto tiles = [&](const AttendSegment& s) {
    return (s.q_rows * a.group + kAttendCols - 1) / kAttendCols;
  };
  const int64_t n = static_cast<int64_t>(live.size());

  if (n >= 8 * thread_count()) {  // enough segments: one thread does all heads of one
    parallel_tasks(n, [&](int64_t i) {
      const AttendSegment& s = live[static_cast<size_t>(i)];
      const BackwardWork w =
          make_work<BackwardWork>(a, tiles(s), want_shared ? s.k_rows * p.dr : 0);
      for (int h = 0; h < p.kv_heads; ++h) {
        backward_head(call, s, h, w, want_shared ? w.shared : nullptr,
                      h == 0 ? Accum::kSet : Accum::kAdd);
      }
      if (want_shared) write_shared(a, s, 0, s.k_rows, p.dr, w.shared, dshared);
    });
    return;
  }
  std::shared_ptr<void> memory;
  std::vector<float*> part(static_cast<size_t>(n),
                           nullptr);  // [kv_heads][k_rows][dr] of each segment
  if (want_shared) {
    memory = pool_.take((k_rows * p.kv_heads * p.dr + kAttendKeys) * 4);
    float* at = static_cast<float*>(memory.get());
    for (int64_t i = 0; i < n; ++i) {
      part[static_cast<size_t>(i)] = at;
      at += live[static_cast<size_t>(i)].k_rows * p.kv_heads * p.dr;
    }
  }
  parallel_tasks(n * p.kv_heads, [&](int64_t item) {
    const size_t i = static_cast<size_t>(item / p.kv_heads);
    const AttendSegment& s = live[i];
    const int64_t h = item % p.kv_heads;
    const BackwardWork w = make_work<BackwardWork>(a, tiles(s), int64_t{0});
    backward_head(call, s, static_cast<int>(h), w,
                  want_shared ? part[i] + h * s.k_rows * p.dr : nullptr, Accum::kSet);
  });
  for (int64_t i = 0; want_shared && i < n; ++i) {
    const AttendSegment& s = live[static_cast<size_t>(i)];
    parallel_for(s.k_rows, 64, [&](int64_t begin, int64_t end) {
      float* sum = part[static_cast<size_t>(i)];
      for (int64_t h = 1; h < p.kv_heads; ++h) {
        const float* add = sum + h * s.k_rows * p.dr;
        for (int64_t e = begin * p.dr; e < end * p.dr; ++e) sum[e] += add[e];
      }
      write_shared(a, s, begin, end, p.dr, sum, dshared);
    });
  }
}

}  // namespace wels
