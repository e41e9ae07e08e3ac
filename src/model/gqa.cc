// Grouped-query attention as Qwen2 (bias on q, k, v) and Llama have it: the distilled R1 models.
// Rotary pairs are halves.
#include "model/block.h"

namespace wels {

Var gqa(Ctx& ctx, AttentionWeights& w, const Var& x, const BlockContext& b) {
  const ModelConfig& c = b.cfg;
  int h = static_cast<int>(c.num_attention_heads), hk = static_cast<int>(c.num_key_value_heads);
  int dh = static_cast<int>(c.head_dim);
  bool bias = c.attention_bias;
  RopeParams rotate{.heads = h, .head_dim = dh, .rotated = dh, .interleaved = false};
  Var q = rope(ctx, matmul(ctx, x, w.q, bias ? &w.q_bias : nullptr), b.pos, rotate);
  rotate.heads = hk;
  Var k = rope(ctx, matmul(ctx, x, w.k, bias ? &w.k_bias : nullptr), b.pos, rotate);
  Var v = matmul(ctx, x, w.v, bias ? &w.v_bias : nullptr);
  AttendParams p{.heads = h,
                 .kv_heads = hk,
                 .dk = dh,
                 .dr = 0,
                 .dv = dh,
                 .k_step = dh,
                 .v_step = dh,
                 .scale = b.scale};
  Var y;
  if (b.options.kv) {
    CHECK(ctx.tape == nullptr);
    Tensor pool = b.options.kv->pool(b.layer);
    ctx.dev.scatter_rows(k.t, b.places.t, pool.col_range(0, int64_t{hk} * dh));
    ctx.dev.scatter_rows(v.t, b.places.t, pool.col_range(int64_t{hk} * dh, int64_t{hk} * dh));
    std::vector<CachedSegment> segments;
    for (const Segment& s : b.batch.segments) {
      segments.push_back({s.row_begin, s.rows, s.past + s.rows, b.options.kv->pages(s.sequence)});
    }
    y = ctx.make_aux(ctx.dtype, q.t.rows, int64_t{h} * dh);
    ctx.dev.attend_cached(q.t, pool, KvCache::kPageRows, segments, p, 0, hk * dh, y.t);
  } else {
    y = attend(ctx, q, k, v, 0, Var(), b.segments, p);
  }
  return matmul(ctx, y, w.o);
}

}  // namespace wels
