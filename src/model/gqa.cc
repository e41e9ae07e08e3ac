// Grouped-query attention as Qwen2 (bias on q, k, v) and Llama have it: the distilled R1 models.
// Rotary pairs are halves.
#include "model/block.h"

namespace wels {
namespace {

// Keys or values x [n, hk·dh] to the cached rows' columns from `begin` on.
void write_rows(Ctx& ctx, const Tensor& x, const BlockContext& b, int64_t begin) {
  Tensor pool = b.options.kv->pool(b.layer);
  int64_t dh = b.cfg.head_dim, head = b.options.kv->layout().head;
  // As one part, unless heads are filled up to blocks.
  int64_t heads = x.cols / dh, parts = dh == head ? 1 : heads, each = heads / parts;
  for (int64_t i = 0; i < parts; ++i) {
    ctx.dev.scatter_rows(x.col_range(i * each * dh, each * dh), b.places.t,
                         pool.col_range(begin + i * each * head, each * head));
  }
}

}  // namespace

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
    const KvLayout& layout = b.options.kv->layout();
    write_rows(ctx, k.t, b, 0);
    write_rows(ctx, v.t, b, layout.second);
    p.k_step = p.v_step = static_cast<int>(layout.head);
    y = ctx.make_aux(ctx.dtype, q.t.rows, int64_t{h} * dh);
    ctx.dev.attend_cached(q.t, b.options.kv->pool(b.layer), KvCache::kPageRows,
                          cached_segments(b.batch.segments, *b.options.kv), p, 0,
                          static_cast<int>(layout.second), y.t);
  } else {
    y = attend(ctx, q, k, v, 0, Var(), b.segments, p);
  }
  return matmul(ctx, y, w.o);
}

}  // namespace wels
