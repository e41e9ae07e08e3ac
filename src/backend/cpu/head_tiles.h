// What all ops of the output head share: tiles of logits that stay in L2, and the way from their
// gradient back to h.
#pragma once
#include <algorithm>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/product.h"
#include "base/threads.h"

namespace wels {

inline constexpr int64_t kChunk =
    192;  // rows of a tile: a panel of the head comes from L3 once for them
inline constexpr int64_t kTile = 512;  // columns of a tile: 384 KB of f32 logits
inline constexpr int64_t kVocabBlock = 1024;
inline constexpr int64_t kPass = 4096;  // rows whose logit gradients exist at a time, at most

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of a work item. Few rows (a decode step scores one per sequence): smaller chunks, so that
// all threads have work.
inline int64_t chunk_rows(int64_t rows) {
  return std::clamp<int64_t>(ceil_div(ceil_div(rows, 2 * thread_count()), 6) * 6, 6, kChunk);
}

// Logits [x.rows, n] of vocabulary entries [begin, begin + n) into tile (rows kTile apart). begin
// is a multiple of kTile.
inline void logits_tile(const Kernels& k, const GemmOperands& ops, const Tensor& x,
                        const PackedWeight& head, int64_t begin, int64_t n, float* tile) {
  GemmBlock g = left_block(x, head.k);
  g.b = head.expert(0) + begin / k.gemm->panel * head.panel_bytes;
  g.b_panel = head.panel_bytes;
  g.n = n;
  set_result(g, Tensor(tile, DType::kF32, x.rows, n, kTile), Accum::kSet);
  ops.multiply(g);
}

inline void divide_logits(const Kernels& k, double temperature, int64_t rows, int64_t n,
                          float* tile) {
  if (temperature == 1) return;
  for (int64_t r = 0; r < rows; ++r)
    k.gemm->f32->scale_terms(tile + r * kTile, n, static_cast<float>(1 / temperature));
}

// Logits of tokens that are not kept become so small that nothing is left of them; finite, so that
// a row may begin with a tile of nothing else. kept as in Targets, its rows those of the tile.
inline void drop_logits(const Tensor& kept, int64_t begin, int64_t n, float* tile) {
  if (kept.empty()) return;
  constexpr float kNothing = -1e30f;
  for (int64_t r = 0; r < kept.rows; ++r) {
    const int32_t* word = kept.row<int32_t>(r) + begin / 32;
    for (int64_t v = 0; v < n; ++v) {
      if ((word[v / 32] >> (v % 32) & 1) == 0) tile[r * kTile + v] = kNothing;
    }
  }
}

inline void fill_zero(const Tensor& t) {
  for (int64_t r = 0; r < t.rows; ++r)
    std::fill_n(t.row_raw(r), row_bytes(t.dtype, t.cols), uint8_t{0});
}

// dh (+)= dz · head's rows of the vocabulary block [begin, begin + dz.cols): the sum over the
// vocabulary goes on from block to block in `sum`, f32 [rows, d]. any: else dz is zero.
inline void add_to_dh(const Kernels& k, const GemmOperands& ops, const PackedWeight& head_back,
                      const Tensor& dz, int64_t begin, bool any, const Tensor& sum,
                      const Tensor& dh, Accum accum) {
  bool first = begin == 0, last = begin + dz.cols == head_back.k;
  GemmBlock g = left_block(dz, any ? dz.cols : 0);
  g.b = head_back.expert(0) + begin / (is_pairs(k, ops) ? 2 : 1) * k.gemm->panel * 4;
  g.b_panel = head_back.panel_bytes;
  g.n = head_back.n;
  if (!first) {
    g.init = sum.row<float>(0);
    g.init_stride = sum.stride;
  }
  last ? set_result(g, dh, accum) : set_result(g, sum, Accum::kSet);
  ops.multiply(g);
}

}  // namespace wels
