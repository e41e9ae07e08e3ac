// The output head against a teacher's distribution, with the logits in tiles as in head.cc.
//
// Values: a chunk of rows walks the vocabulary with a running maximum and sum (online softmax,
// Milakov & Gimelshein 2018) of the tokens that the teacher does not name; the named ones' logits
// are set aside, so that the bucket's mass is a sum of its own however small it is.
//
// Gradient: the tiles again, each turned into dz = dkl / T · slope: a multiple of the bucket's
// softmax, with the named tokens' slopes written over it.
//
// Top tokens: the same walk, with the k largest logits so far kept in order beside it. What they
// push out goes to the sum of the others.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "backend/cpu/head_tiles.h"
#include "backend/ref/kl_row.h"

namespace wels {
namespace {

constexpr float kOut = -1e30f;  // a logit that is in no sum

// The largest logits of one row and their ids, by descending logit, ties to the lower id.
struct Largest {
  int64_t most, kept = 0;
  float* z;
  int32_t* id;

  // Entries [begin, begin + n) of the row: those kept become kOut in `tile`; those of earlier tiles
  // that they push out are appended to `pushed`.
  void take(float* tile, int64_t n, int64_t begin, std::vector<float>& pushed) {
    for (int64_t i = 0; i < n; ++i) {
      if (kept == most && !(tile[i] > z[most - 1])) continue;
      if (kept == most) {
        int64_t old = id[most - 1] - begin;
        if (old >= 0) {
          tile[old] = z[most - 1];
        } else {
          pushed.push_back(z[most - 1]);
        }
      } else {
        ++kept;
      }
      int64_t at = kept - 1;
      for (; at > 0 && tile[i] > z[at - 1]; --at) {
        z[at] = z[at - 1];
        id[at] = id[at - 1];
      }
      z[at] = std::exchange(tile[i], kOut);
      id[at] = static_cast<int32_t>(begin + i);
    }
  }
};

struct Kl {
  const Kernels& k;
  const GemmOperands& ops;
  const PackedWeight& head;
  float inverse_temperature;

  // Calls fn(row, tile of n logits / T, first entry, n) for every tile of every row of `h` that
  // `wanted` says.
  template <class Wanted, class Fn>
  void walk(const Tensor& h, int64_t begin, int64_t end, Wanted&& wanted, Fn&& fn) const {
    Tensor x = left_operand(k, ops, h);
    float* tile = thread_scratch<float>(Scratch::kC, kChunk * kTile);
    for (int64_t v = begin; v < end; v += kTile) {
      int64_t n = std::min(kTile, end - v);
      logits_tile(k, ops, x, head, v, n, tile);
      for (int64_t r = 0; r < h.rows; ++r) {
        if (!wanted(r)) continue;
        float* z = tile + r * kTile;
        if (inverse_temperature != 1) k.gemm->f32->scale_terms(z, n, inverse_temperature);
        fn(r, z, v, n);
      }
    }
  }

  void top_tokens(const Tensor& h, const TopTokens& top, int64_t row) const {
    int64_t most = top.k();
    std::vector<float> z(static_cast<size_t>(h.rows * most)), pushed;
    std::vector<float> highest(static_cast<size_t>(h.rows),
                               -std::numeric_limits<float>::infinity()),
        sum(highest.size());
    std::vector<Largest> best;
    for (int64_t r = 0; r < h.rows; ++r)
      best.push_back({most, 0, z.data() + r * most, top.id.row<int32_t>(row + r)});
    walk(
        h, 0, head.n, [](int64_t) { return true; },
        [&](int64_t r, float* tile, int64_t v, int64_t n) {
          auto i = static_cast<size_t>(r);
          pushed.clear();
          best[i].take(tile, n, v, pushed);
          ops.softmax_terms(tile, n, &highest[i], &sum[i], nullptr);
          if (!pushed.empty()) {
            ops.softmax_terms(pushed.data(), static_cast<int64_t>(pushed.size()), &highest[i],
                              &sum[i], nullptr);
          }
        });
    for (int64_t r = 0; r < h.rows; ++r) {
      auto i = static_cast<size_t>(r);
      double tail = highest[i] + std::log(static_cast<double>(sum[i])), first = best[i].z[0];
      double largest = std::max(first, tail), total = std::exp(tail - largest);
      for (int64_t j = 0; j < best[i].kept; ++j)
        total += std::exp(static_cast<double>(best[i].z[j]) - largest);
      double lse = largest + std::log(total);
      for (int64_t j = 0; j < most; ++j) {
        bool there = j < best[i].kept;
        if (!there) best[i].id[j] = -1;
        top.logp.row<float>(row + r)[j] =
            there ? static_cast<float>(static_cast<double>(best[i].z[j]) - lse) : 0.0f;
      }
      top.tail.row<float>(row + r)[0] = static_cast<float>(std::exp(tail - lse));
    }
  }

  // Sets aside the named tokens of row `row` in a tile: named(j, its place).
  template <class Fn>
  static void for_named(const TopTokens& teacher, int64_t row, int64_t v, int64_t n, Fn&& named) {
    const int32_t* id = teacher.id.row<int32_t>(row);
    for (int64_t j = 0; j < teacher.k(); ++j) {
      int64_t at = id[j] - v;
      if (id[j] >= 0 && at >= 0 && at < n) named(j, at);
    }
  }

  void values(const Tensor& h, const TopTokens& teacher, bool reverse, int64_t row,
              const Tensor& kl, const Tensor& slope) const {
    int64_t width = teacher.k() + 2;
    std::vector<float> s(static_cast<size_t>(h.rows * width));
    float highest[kChunk], sum[kChunk];
    std::fill_n(highest, h.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, h.rows, 0.0f);
    walk(
        h, 0, head.n, [&](int64_t r) { return has_teacher(teacher, row + r); },
        [&](int64_t r, float* tile, int64_t v, int64_t n) {
          for_named(teacher, row + r, v, n, [&](int64_t j, int64_t at) {
            s[static_cast<size_t>(r * width + j)] = std::exchange(tile[at], kOut);
          });
          ops.softmax_terms(tile, n, &highest[r], &sum[r], nullptr);
        });
    for (int64_t r = 0; r < h.rows; ++r) {
      float* own = s.data() + r * width;
      double value = 0;
      if (has_teacher(teacher, row + r)) {
        own[width - 1] = highest[r] + std::log(sum[r]);
        value = kl_row(teacher.id.row<int32_t>(row + r), teacher.logp.row<float>(row + r),
                       teacher.tail.row<float>(row + r)[0], teacher.k(), reverse, own);
      }
      kl.row<float>(row + r)[0] = static_cast<float>(value);
      if (!slope.empty()) std::copy_n(own, width, slope.row<float>(row + r));
    }
  }

  // dz [rows, n] of ops' element type: the gradient of the logits of rows [row, ..), vocabulary
  // entries [begin, begin + dz.cols). Returns whether any is not zero by definition.
  bool gradient(const Tensor& h, const TopTokens& teacher, const Tensor& slope, const Tensor& dkl,
                int64_t row, int64_t begin, const Tensor& dz) const {
    auto wanted = [&](int64_t r) {
      return has_teacher(teacher, row + r) && dkl.row<float>(row + r)[0] != 0;
    };
    bool any = false;
    for (int64_t r = 0; r < h.rows; ++r) {
      wanted(r) ? void(any = true) : fill_zero(dz.row_range(r, 1));
    }
    if (!any) return false;
    walk(h, begin, begin + dz.cols, wanted, [&](int64_t r, float* tile, int64_t v, int64_t n) {
      const float* s = slope.row<float>(row + r);
      float d = dkl.row<float>(row + r)[0] * inverse_temperature;
      Tensor out = dz.row_range(r, 1).col_range(v - begin, n);
      for_named(teacher, row + r, v, n, [&](int64_t, int64_t at) { tile[at] = kOut; });
      ops.logit_gradient(tile, n, s[teacher.k() + 1], -d * s[teacher.k()], -1, out.data);
      for_named(teacher, row + r, v, n, [&](int64_t j, int64_t at) {
        if (out.dtype == DType::kBF16) {
          out.row<bf16>(0)[at] = to_bf16(d * s[j]);
        } else {
          out.row<float>(0)[at] = d * s[j];
        }
      });
    });
    return true;
  }
};

TopTokens rows_of(const TopTokens& t, int64_t begin, int64_t rows) {
  return {t.id.row_range(begin, rows), t.logp.row_range(begin, rows),
          t.tail.row_range(begin, rows)};
}

}  // namespace

void CpuDevice::top_tokens(const Tensor& h, const Weight& head, double temperature,
                           const TopTokens& top) {
  if (h.rows == 0) return;
  CHECK(h.cols == head.cols);
  const GemmOperands& ops = operands_for(*k_, h.dtype, head.full_precision);
  Kl op{*k_, ops, packed_weight(*k_, head, PackDirection::kForward, is_pairs(*k_, ops), false),
        static_cast<float>(1 / temperature)};
  int64_t chunk = chunk_rows(h.rows);
  parallel_tasks(ceil_div(h.rows, chunk), [&](int64_t i) {
    op.top_tokens(h.row_range(i * chunk, std::min(chunk, h.rows - i * chunk)), top, i * chunk);
  });
}

void CpuDevice::token_kl(const Tensor& h, const Weight& head, const TopTokens& teacher,
                         const KlParams& p, Tensor kl, Tensor slope) {
  if (h.rows == 0) return;
  CHECK(h.cols == head.cols);
  const GemmOperands& ops = operands_for(*k_, h.dtype, head.full_precision);
  Kl op{*k_, ops, packed_weight(*k_, head, PackDirection::kForward, is_pairs(*k_, ops), false),
        static_cast<float>(1 / p.temperature)};
  int64_t chunk = chunk_rows(h.rows);
  parallel_tasks(ceil_div(h.rows, chunk), [&](int64_t i) {
    op.values(h.row_range(i * chunk, std::min(chunk, h.rows - i * chunk)), teacher, p.reverse,
              i * chunk, kl, slope);
  });
}

void CpuDevice::token_kl_backward(const Tensor& h, const Weight& head, const TopTokens& teacher,
                                  const KlParams& p, const Tensor& slope, const Tensor& dkl,
                                  Tensor dh, Accum accum, Tensor dhead, Accum dhead_accum) {
  const GemmOperands& ops = operands_for(*k_, h.dtype, head.full_precision);
  bool pairs = is_pairs(*k_, ops);
  if (h.rows == 0) {
    TransposedProduct none{h.row_range(0, 0), h.row_range(0, 0), dhead, dhead_accum};
    none.dy.cols = head.rows;
    if (!dhead.empty()) multiply_transposed(*k_, ops, {&none, 1}, false);
    return;
  }
  int64_t most = std::min(kPass, h.rows), block = std::min(kVocabBlock, head.rows);
  OwnedTensor kept = make_tensor(pool_, element_type(*k_, ops), most, block);
  OwnedTensor sum = make_tensor(pool_, DType::kF32, dh.empty() ? 0 : most, head.cols);
  Kl op{*k_, ops, packed_weight(*k_, head, PackDirection::kForward, pairs, false),
        static_cast<float>(1 / p.temperature)};
  const PackedWeight& back = packed_weight(*k_, head, PackDirection::kBackward, pairs, false);
  for (int64_t pass = 0; pass < h.rows; pass += kPass) {
    int64_t rows = std::min(kPass, h.rows - pass);
    TopTokens of_pass = rows_of(teacher, pass, rows);
    for (int64_t begin = 0; begin < head.rows; begin += block) {
      int64_t n = std::min(block, head.rows - begin);
      parallel_tasks(ceil_div(rows, kChunk), [&](int64_t i) {
        int64_t row = i * kChunk, count = std::min(kChunk, rows - row);
        Tensor dz = kept.t.row_range(row, count).col_range(0, n);
        bool any = op.gradient(h.row_range(pass + row, count), of_pass, slope.row_range(pass, rows),
                               dkl.row_range(pass, rows), row, begin, dz);
        if (dh.empty()) return;
        add_to_dh(*k_, ops, back, dz, begin, any, sum.t.row_range(row, count),
                  dh.row_range(pass + row, count), accum);
      });
      if (dhead.empty()) continue;
      TransposedProduct t{kept.t.row_range(0, rows).col_range(0, n), h.row_range(pass, rows),
                          dhead.row_range(begin, n), pass == 0 ? dhead_accum : Accum::kAdd};
      multiply_transposed(*k_, ops, {&t, 1}, false);
    }
  }
}

}  // namespace wels
