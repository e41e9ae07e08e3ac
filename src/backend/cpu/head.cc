// The output head: log-probabilities of targets and their gradient, with the logits in tiles that
// stay in L2.
//
// Forward: a work item is a chunk of rows; it walks the vocabulary in blocks and keeps a running
// maximum and sum per row (online softmax, Milakov & Gimelshein 2018).
//
// Gradient together with the values (cross-entropy: dlogp is known before): the same walk also
// keeps the softmax's terms e^(z - maximum so far) of a pass of rows, in the operands' dtype and at
// most kTermsBytes of them. When a row's sum is known, a scale per row and tile makes them the
// gradient of the logits, dz = dlogp · ([target] - softmax), in place; then dh = dz · head and
// dhead += dzᵀ · h.
//
// Gradient alone (the objective needs the values first, or a pass would have too few rows): the
// tiles again, each turned into dz, which for a vocabulary block of up to 1024 is kept for all rows
// of the pass. One recomputed product in place of n × vocab numbers.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/head_tiles.h"
#include "base/threads.h"

namespace wels {
namespace {

constexpr int64_t kTermsBytes = 32 << 20;  // enough for a vocabulary of 32,000

int32_t target_of(const Targets& target, int64_t row) { return target.id.row<int32_t>(0)[row]; }
bool has_target(const Targets& target, int64_t row) { return target_of(target, row) >= 0; }

// Softmax of a chunk of rows while it walks the vocabulary: p = e^(z - top) / sum.
struct RunningSoftmax {
  float top[kChunk], sum[kChunk], chosen[kChunk];  // chosen: the target's logit

  // h: the chunk's rows, target theirs. terms [rows, vocab] of ops' element type gets the terms
  // e^(z - top), with top as it was after their tile: top_of_tile[tile · kChunk + row]. Empty and
  // null: not wanted.
  void walk(const Kernels& k, const GemmOperands& ops, const Tensor& h, const PackedWeight& head,
            const Targets& target, const Tensor& terms, float* top_of_tile) {
    std::fill_n(top, h.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, h.rows, 0.0f);
    std::fill_n(chosen, h.rows, 0.0f);
    Tensor x = left_operand(k, ops, h);
    float* tile = thread_scratch<float>(Scratch::kC, kChunk * kTile);
    for (int64_t v = 0; v < head.n; v += kTile) {
      int64_t n = std::min(kTile, head.n - v);
      logits_tile(k, ops, x, head, v, n, tile);
      divide_logits(k, target.temperature, h.rows, n, tile);
      drop_logits(target.kept, v, n, tile);
      for (int64_t r = 0; r < h.rows; ++r) {
        void* out = terms.empty() ? nullptr : terms.col_range(v, n).row_raw(r);
        ops.softmax_terms(tile + r * kTile, n, &top[r], &sum[r], out);
        int64_t t = target_of(target, r) - v;
        if (t >= 0 && t < n) chosen[r] = tile[r * kTile + t];
      }
      if (top_of_tile) std::copy_n(top, h.rows, top_of_tile + v / kTile * kChunk);
    }
  }
  float log_sum(int64_t r) const { return top[r] + std::log(sum[r]); }
  float logp(int64_t r, const Targets& target) const {
    return has_target(target, r) ? chosen[r] - top[r] - std::log(sum[r]) : 0.0f;
  }
};

// Values and gradient of the rows of one pass.
struct KnownGradient {
  const Kernels& k;
  const GemmOperands& ops;
  const PackedWeight &head, &head_back;
  Tensor h;  // of the pass, as all that follows
  Targets target;
  Tensor dlogp, logp, dh;
  Tensor terms;  // [rows of the pass, vocab], in the end dz

  void chunk(int64_t row, int64_t rows) const {
    Targets ids = target.range(row, rows);
    Tensor dz = terms.row_range(row, rows);
    bool any = false;
    for (int64_t r = 0; r < rows; ++r) any = any || has_target(ids, r);
    if (!any) {
      for (const Tensor& t : {logp, terms, dh}) {
        if (!t.empty()) fill_zero(t.row_range(row, rows));
      }
      return;
    }
    RunningSoftmax s;
    float* tops = thread_scratch<float>(Scratch::kScales, ceil_div(head.n, kTile) * kChunk);
    s.walk(k, ops, h.row_range(row, rows), head, ids, dz, tops);
    for (int64_t r = 0; r < rows; ++r) logp.row<float>(row + r)[0] = s.logp(r, ids);
    Tensor sum(thread_scratch<float>(Scratch::kC, rows * h.cols), DType::kF32, rows, h.cols);
    for (int64_t v = 0; v < head.n; v += kVocabBlock) {
      Tensor block = dz.col_range(v, std::min(kVocabBlock, head.n - v));
      for (int64_t r = 0; r < rows; ++r) to_gradient(s, tops, row, r, v, block);
      if (!dh.empty()) {
        add_to_dh(k, ops, head_back, block, v, true, sum, dh.row_range(row, rows), Accum::kSet);
      }
    }
  }

  // Row r of the chunk that begins at `row`: block [begin, ..) from terms to dz.
  void to_gradient(const RunningSoftmax& s, const float* tops, int64_t row, int64_t r,
                   int64_t begin, const Tensor& block) const {
    int32_t t = target_of(target, row + r);
    if (t < 0) return fill_zero(block.row_range(r, 1));
    float d = dlogp.row<float>(row + r)[0] / static_cast<float>(target.temperature);
    for (int64_t v = 0; v < block.cols; v += kTile) {
      int64_t n = std::min(kTile, block.cols - v);
      float then = tops[(begin + v) / kTile * kChunk + r];
      ops.scale_terms(block.col_range(v, n).row_raw(r), n,
                      -d * std::exp(then - s.top[r]) / s.sum[r]);
    }
    if (t < begin || t >= begin + block.cols) return;
    float at_target = -d * std::expm1(logp.row<float>(row + r)[0]);
    if (block.dtype == DType::kBF16) {
      block.row<bf16>(r)[t - begin] = to_bf16(at_target);
    } else {
      block.row<float>(r)[t - begin] = at_target;
    }
  }
};

// Rows whose terms are kept at a time: whole blocks of multiply_transposed's sums. 0: not even one
// fits. dhead's bits depend on it, so the number of threads must not matter here.
int64_t pass_rows(int64_t row_bytes, bool pairs) {
  int64_t block = pairs ? 512 : 256;
  return std::min(kPass, kTermsBytes / row_bytes / block * block);
}

// One cache line more than whole ones: rows must not lie multiples of 4 KB apart.
int64_t terms_stride(int64_t vocab, DType element) {
  int64_t line = 64 / info(element).bytes;
  return (ceil_div(vocab, line) + 1) * line;
}

struct Backward {
  const Kernels& k;
  const GemmOperands& ops;
  const PackedWeight &head, &head_back;
  Tensor h;
  Targets target;
  Tensor lse, dlogp, dh;
  Accum accum;
  Tensor dz;   // [rows of the pass, kVocabBlock]
  Tensor sum;  // dh in f32 [rows of the pass, d]

  // Rows [row, row + rows) of the pass that begins at `pass`, vocabulary block [begin, begin + n).
  void chunk(int64_t pass, int64_t row, int64_t rows, int64_t begin, int64_t n) const {
    bool any = false;
    for (int64_t r = 0; r < rows; ++r) any = any || has_target(target, pass + row + r);
    Tensor d = dz.row_range(row, rows).col_range(0, n);
    any ? fill_gradient(pass, row, d, begin) : fill_zero(d);
    if (!dh.empty()) {
      add_to_dh(k, ops, head_back, d, begin, any, sum.row_range(row, rows),
                dh.row_range(pass + row, rows), accum);
    }
  }

  void fill_gradient(int64_t pass, int64_t row, const Tensor& d, int64_t begin) const {
    Tensor x = left_operand(k, ops, h.row_range(pass + row, d.rows));
    float* tile = thread_scratch<float>(Scratch::kC, kChunk * kTile);
    for (int64_t v = 0; v < d.cols; v += kTile) {
      int64_t n = std::min(kTile, d.cols - v);
      logits_tile(k, ops, x, head, begin + v, n, tile);
      divide_logits(k, target.temperature, d.rows, n, tile);
      if (!target.kept.empty())
        drop_logits(target.kept.row_range(pass + row, d.rows), begin + v, n, tile);
      for (int64_t r = 0; r < d.rows; ++r) {
        int64_t i = pass + row + r;
        Tensor out = d.row_range(r, 1).col_range(v, n);
        if (has_target(target, i)) {
          float up = dlogp.row<float>(i)[0] / static_cast<float>(target.temperature);
          ops.logit_gradient(tile + r * kTile, n, lse.row<float>(i)[0], up,
                             target_of(target, i) - (begin + v), out.data);
        } else {
          fill_zero(out);
        }
      }
    }
  }
};

}  // namespace

int64_t head_gradient_bytes(int64_t rows, int64_t vocab, int64_t d, DType element) {
  int64_t terms = row_bytes(element, terms_stride(vocab, element));
  if (int64_t most = pass_rows(terms, element == DType::kBF16); most > 0)
    return Pool::size_class(std::min(most, rows) * terms);
  int64_t pass = std::min(kPass, rows);
  return Pool::size_class(pass * row_bytes(element, std::min(kVocabBlock, vocab))) +
         Pool::size_class(pass * row_bytes(DType::kF32, d));
}

void CpuDevice::token_logp(const Tensor& h, const Weight& head, const Targets& target, Tensor logp,
                           Tensor lse) {
  if (h.rows == 0) return;
  const GemmOperands& ops = operands_for(*k_, h.dtype, head.full_precision);
  const PackedWeight& packed =
      packed_weight(*k_, head, PackDirection::kForward, is_pairs(*k_, ops), false);
  CHECK(h.cols == head.cols);
  int64_t chunk = chunk_rows(h.rows);
  parallel_tasks(ceil_div(h.rows, chunk), [&](int64_t item) {
    int64_t row = item * chunk, rows = std::min(chunk, h.rows - row);
    Targets ids = target.range(row, rows);
    RunningSoftmax s;
    s.walk(*k_, ops, h.row_range(row, rows), packed, ids, Tensor(), nullptr);
    for (int64_t r = 0; r < rows; ++r) {
      logp.row<float>(row + r)[0] = s.logp(r, ids);
      if (!lse.empty()) lse.row<float>(row + r)[0] = s.log_sum(r);
    }
  });
}

void CpuDevice::token_logp_and_gradient(const Tensor& h, const Weight& head, const Targets& target,
                                        const Tensor& dlogp, Tensor logp, Tensor dh, Tensor dhead,
                                        Accum dhead_accum) {
  const GemmOperands& ops = operands_for(*k_, h.dtype, head.full_precision);
  bool pairs = is_pairs(*k_, ops);
  DType element = element_type(*k_, ops);
  int64_t stride = terms_stride(head.rows, element);
  int64_t most = pass_rows(row_bytes(element, stride), pairs);
  if (h.rows == 0 || most == 0) {
    return RefDevice::token_logp_and_gradient(h, head, target, dlogp, logp, dh, dhead, dhead_accum);
  }
  CHECK(h.cols == head.cols);
  OwnedTensor terms = make_tensor(pool_, element, std::min(most, h.rows), stride);
  const PackedWeight& forward = packed_weight(*k_, head, PackDirection::kForward, pairs, false);
  const PackedWeight& back = packed_weight(*k_, head, PackDirection::kBackward, pairs, false);
  for (int64_t begin = 0; begin < h.rows; begin += most) {
    int64_t n = std::min(most, h.rows - begin), chunk = chunk_rows(n);
    Tensor dz = terms.t.row_range(0, n).col_range(0, head.rows);
    KnownGradient pass{*k_,
                       ops,
                       forward,
                       back,
                       h.row_range(begin, n),
                       target.range(begin, n),
                       dlogp.row_range(begin, n),
                       logp.row_range(begin, n),
                       dh.empty() ? dh : dh.row_range(begin, n),
                       dz};
    parallel_tasks(ceil_div(n, chunk),
                   [&](int64_t i) { pass.chunk(i * chunk, std::min(chunk, n - i * chunk)); });
    if (dhead.empty()) continue;
    TransposedProduct p{dz, h.row_range(begin, n), dhead, begin == 0 ? dhead_accum : Accum::kAdd};
    multiply_transposed(*k_, ops, {&p, 1}, false);
  }
}

void CpuDevice::token_logp_backward(const Tensor& h, const Weight& head, const Targets& target,
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
