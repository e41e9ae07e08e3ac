// The output head: log-probabilities of targets and their gradient, with the logits in tiles that
// stay in L2.
//
// Forward: a work item is a chunk of rows; it walks the vocabulary in blocks and keeps a running
// maximum and sum per row (online softmax, Milakov & Gimelshein 2018). Backward: the same tiles
// again, each turned into the gradient of its logits (d · (target - softmax)), which for a
// vocabulary block of up to 1024 is kept for all rows of the pass, in the operands' dtype; dh adds
// up over the blocks, and dhead's rows of the block are one transposed product. One recomputed
// product in place of n × vocab numbers that would have to be written and read twice.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/product.h"
#include "base/threads.h"

namespace wels {
namespace {

constexpr int64_t kChunk = 96;  // rows of a tile
constexpr int64_t kTile = 256;  // columns of a tile: 96 KB of f32 logits
constexpr int64_t kVocabBlock = 1024;
constexpr int64_t kPass = 4096;  // rows whose logit gradients exist at a time

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Logits [x.rows, n] of vocabulary entries [begin, begin + n) into tile (rows kTile apart). begin
// is a multiple of kTile.
void logits_tile(const Kernels& k, const GemmOperands& ops, const Tensor& x,
                 const PackedWeight& head, int64_t begin, int64_t n, float* tile) {
  GemmBlock g = left_block(x, head.k);
  g.b = head.expert(0) + begin / k.gemm->panel * head.panel_bytes;
  g.b_panel = head.panel_bytes;
  g.n = n;
  set_result(g, Tensor(tile, DType::kF32, x.rows, n, kTile), Accum::kSet);
  ops.multiply(g);
}

struct Backward {
  const Kernels& k;
  const GemmOperands& ops;
  const PackedWeight &head, &head_back;
  Tensor h, target, lse, dlogp, dh;
  Accum accum;
  int64_t vocab;
  Tensor dz;   // [rows of the pass, kVocabBlock]
  Tensor sum;  // dh in f32 [rows of the pass, d]

  // Rows [row, row + rows) of the pass that begins at `pass`, vocabulary block [begin, begin + n).
  void chunk(int64_t pass, int64_t row, int64_t rows, int64_t begin, int64_t n) const {
    bool any = false;
    for (int64_t r = 0; r < rows; ++r) any = any || active(pass + row + r);
    Tensor d = dz.row_range(row, rows).col_range(0, n);
    if (any) {
      fill_gradient(pass, row, d, begin);
    } else {
      for (int64_t r = 0; r < rows; ++r)
        std::fill_n(d.row_raw(r), row_bytes(d.dtype, n), uint8_t{0});
    }
    if (!dh.empty()) add_to_dh(pass, row, d, begin, any);
  }

  bool active(int64_t r) const { return target.row<int32_t>(0)[r] >= 0; }

  void fill_gradient(int64_t pass, int64_t row, const Tensor& d, int64_t begin) const {
    Tensor x = left_operand(k, ops, h.row_range(pass + row, d.rows));
    float* tile = thread_scratch<float>(Scratch::kC, kChunk * kTile);
    for (int64_t v = 0; v < d.cols; v += kTile) {
      int64_t n = std::min(kTile, d.cols - v);
      logits_tile(k, ops, x, head, begin + v, n, tile);
      for (int64_t r = 0; r < d.rows; ++r) {
        int64_t i = pass + row + r;
        void* out = d.col_range(v, n).row_raw(r);
        if (active(i)) {
          ops.logit_gradient(tile + r * kTile, n, lse.row<float>(i)[0], dlogp.row<float>(i)[0],
                             target.row<int32_t>(0)[i] - (begin + v), out);
        } else {
          std::fill_n(static_cast<uint8_t*>(out), row_bytes(d.dtype, n), uint8_t{0});
        }
      }
    }
  }

  // dh += dz · head's rows of the block: the sum over the vocabulary goes on from block to block in
  // f32.
  void add_to_dh(int64_t pass, int64_t row, const Tensor& d, int64_t begin, bool any) const {
    bool first = begin == 0, last = begin + d.cols == vocab;
    GemmBlock g = left_block(d, any ? d.cols : 0);  // without targets: nothing to add
    g.b = head_back.expert(0) + begin / (is_pairs(k, ops) ? 2 : 1) * k.gemm->panel * 4;
    g.b_panel = head_back.panel_bytes;
    g.n = head_back.n;
    Tensor partial = sum.row_range(row, d.rows);
    if (!first) {
      g.init = partial.row<float>(0);
      g.init_stride = partial.stride;
    }
    last ? set_result(g, dh.row_range(pass + row, d.rows), accum)
         : set_result(g, partial, Accum::kSet);
    ops.multiply(g);
  }
};

}  // namespace

void CpuDevice::token_logp(const Tensor& h, const Weight& head, const Tensor& target, Tensor logp,
                           Tensor lse) {
  if (h.rows == 0) return;
  const GemmOperands& ops = operands_for(*k_, h.dtype, head.full_precision);
  const PackedWeight& packed =
      packed_weight(*k_, head, PackDirection::kForward, is_pairs(*k_, ops), false);
  CHECK(h.cols == head.cols);
  // Few rows (a decode step scores one per sequence): smaller chunks, so that all threads have
  // work.
  int64_t chunk =
      std::clamp<int64_t>(ceil_div(ceil_div(h.rows, 2 * thread_count()), 6) * 6, 6, kChunk);
  parallel_tasks(ceil_div(h.rows, chunk), [&](int64_t item) {
    int64_t row = item * chunk, rows = std::min(chunk, h.rows - row);
    Tensor x = left_operand(*k_, ops, h.row_range(row, rows));
    float* tile = thread_scratch<float>(Scratch::kC, kChunk * kTile);
    float top[kChunk], sum[kChunk], chosen[kChunk] = {};
    std::fill_n(top, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, rows, 0.0f);
    for (int64_t v = 0; v < head.rows; v += kTile) {
      int64_t n = std::min(kTile, head.rows - v);
      logits_tile(*k_, ops, x, packed, v, n, tile);
      for (int64_t r = 0; r < rows; ++r) {
        k_->gemm->softmax_sum(tile + r * kTile, n, &top[r], &sum[r]);
        int64_t t = target.row<int32_t>(0)[row + r] - v;
        if (t >= 0 && t < n) chosen[r] = tile[r * kTile + t];
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      float log_sum = top[r] + std::log(sum[r]);
      logp.row<float>(row + r)[0] =
          target.row<int32_t>(0)[row + r] < 0 ? 0.0f : chosen[r] - log_sum;
      if (!lse.empty()) lse.row<float>(row + r)[0] = log_sum;
    }
  });
}

void CpuDevice::token_logp_backward(const Tensor& h, const Weight& head, const Tensor& target,
                                    const Tensor& lse, const Tensor& dlogp, Tensor dh, Accum accum,
                                    Tensor dhead, Accum dhead_accum) {
  const GemmOperands& ops = operands_for(*k_, h.dtype, head.full_precision);
  bool pairs = is_pairs(*k_, ops);
  if (h.rows == 0) {
    TransposedProduct none{h.row_range(0, 0), h.row_range(0, 0), dhead, dhead_accum};
    none.dy.cols = head.rows;
    if (!dhead.empty()) multiply_transposed(*k_, ops, {&none, 1}, false);
    return;
  }
  int64_t pass_rows = std::min(kPass, h.rows), block = std::min(kVocabBlock, head.rows);
  OwnedTensor dz = make_tensor(pool_, pairs ? DType::kBF16 : DType::kF32, pass_rows, block);
  OwnedTensor sum = make_tensor(pool_, DType::kF32, dh.empty() ? 0 : pass_rows, head.cols);
  Backward b{*k_,
             ops,
             packed_weight(*k_, head, PackDirection::kForward, pairs, false),
             packed_weight(*k_, head, PackDirection::kBackward, pairs, false),
             h,
             target,
             lse,
             dlogp,
             dh,
             accum,
             head.rows,
             dz.t,
             sum.t};
  for (int64_t pass = 0; pass < h.rows; pass += kPass) {
    int64_t rows = std::min(kPass, h.rows - pass);
    for (int64_t begin = 0; begin < head.rows; begin += block) {
      int64_t n = std::min(block, head.rows - begin);
      parallel_tasks(ceil_div(rows, kChunk), [&](int64_t i) {
        b.chunk(pass, i * kChunk, std::min(kChunk, rows - i * kChunk), begin, n);
      });
      if (dhead.empty()) continue;
      TransposedProduct p{dz.t.row_range(0, rows).col_range(0, n), h.row_range(pass, rows),
                          dhead.row_range(begin, n), pass == 0 ? dhead_accum : Accum::kAdd};
      multiply_transposed(*k_, ops, {&p, 1}, false);
    }
  }
}

}  // namespace wels
