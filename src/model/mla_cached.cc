// Multi-head latent attention over the KV cache, in two equal forms. A cached row is the latent c
// and the rotated key k^R; where bits are to be training's, keys and values of every head instead
// (MlaRows::kExpanded).
//
// Expanded (long pieces of prompts): keys and values of every head are made from all cached c by
// W_UK and W_UV (kv_b), then attention is ordinary, as in mla.cc.
//
// Absorbed (decode): a head meets c only through these matrices, which are the same for every row j
// of the cache, so that they can stand on the other side:
//   scores   (W_UQ x)ᵀ (W_UK c_j) = (W_UKᵀ W_UQ x)ᵀ c_j    W_UK moves into the query
//   outputs  Σ_j p_j (W_UV c_j) = W_UV (Σ_j p_j c_j)       W_UV comes after the weighted sum
// (W_UQ x is q^C; the scores of q^R and k^R are as they were.) Then all heads attend to the cached
// rows themselves, like one key and value head that is r + dr wide: per query and key 2r + dr
// multiply-adds a head instead of dn + dr + dv, but no expansion of all keys. Which is cheaper
// depends on how many queries share the expansion; each segment chooses for itself (or is told), so
// that its result does not depend on the rest of the batch.
#include "model/mla.h"

namespace wels {

// By the multiply-adds of one head; pairs: of a query and a key that it sees.
MlaForm cheaper_mla_form(const ModelConfig& c, int64_t past_rows, int64_t new_rows) {
  double r = static_cast<double>(c.kv_lora_rank), dn = static_cast<double>(c.qk_nope_head_dim);
  double dr = static_cast<double>(c.qk_rope_head_dim), dv = static_cast<double>(c.v_head_dim);
  double past = static_cast<double>(past_rows), rows = static_cast<double>(new_rows);
  double pairs = rows * (past + (rows + 1) / 2);
  double expanded = (past + rows) * r * (dn + dv) + pairs * (dn + dr + dv);
  double absorbed = rows * r * (dn + dv) + pairs * (2 * r + dr);
  return absorbed <= expanded ? MlaForm::kAbsorbed : MlaForm::kExpanded;
}

namespace {

// One segment in the expanded form over cache and new rows: y's rows of that segment.
void expanded_from_cache(Ctx& ctx, AttentionWeights& w, const MlaInput& in, const Segment& s,
                         const BlockContext& b, Tensor y) {
  const ModelConfig& c = b.cfg;
  int64_t keys = s.past + s.rows, r = c.kv_lora_rank, dr = c.qk_rope_head_dim;
  std::vector<int32_t> places = b.options.kv->places(s.sequence, keys);
  Var index = ctx.make_ids(places.data(), keys);
  const KvLayout& layout = b.options.kv->layout();
  Var rows = ctx.make_aux(ctx.dtype, keys, layout.width);
  ctx.dev.gather_rows(b.options.kv->pool(b.layer), index.t, rows.t);
  Var latent = rows;
  latent.t = rows.t.col_range(0, r);
  Var kv = matmul(ctx, latent, w.kv_b);
  AttendSegment seg{0, s.rows, 0, keys};
  AttendParams p = expanded_params(c, b.scale);
  ctx.dev.attend(in.q.t.row_range(s.row_begin, s.rows), kv.t,
                 kv.t.col_range(p.dk, kv.t.cols - p.dk), rows.t.col_range(layout.second, dr),
                 {&seg, 1}, p, y.row_range(s.row_begin, s.rows), Tensor());
}

// A tensor of whole rows with `parts` rows for each.
Tensor split_rows(const Tensor& t, int64_t parts) {
  CHECK(t.contiguous());
  return Tensor(t.data, t.dtype, t.rows * parts, t.cols / parts);
}

// What a low-rank change of kv_b adds to the absorbed queries y [n, h·(r+dr)]: with W_UK's part of
// `up`, s · q_nope_i · up_i · down.
void absorb_query_low_rank(Ctx& ctx, const LowRank& lora, const Tensor& q, int h, int dn, int dr,
                           int dv, Tensor y) {
  int64_t rank = lora.up.cols, r = lora.down.cols;
  Var inner = ctx.make_aux(ctx.dtype, q.rows, h * (rank + dr));
  ctx.dev.absorb_query(q, lora.up, h, dn, dr, dv, inner.t);
  ctx.dev.scale(inner.t, static_cast<float>(lora.scale), inner.t, Accum::kSet);
  ctx.dev.matmul_dx(split_rows(inner.t, h).col_range(0, rank), lora.down,
                    split_rows(y, h).col_range(0, r), Accum::kAdd);
}

// And to the outputs y [n, h·dv] of what was mixed, x [n, h·r]: s · up_i · down · x_i.
void absorb_output_low_rank(Ctx& ctx, const LowRank& lora, const Tensor& x, int h, int dn, int dv,
                            Tensor y) {
  int64_t rank = lora.up.cols;
  Var inner = ctx.make_aux(ctx.dtype, x.rows, h * rank),
      added = ctx.make_aux(ctx.dtype, x.rows, int64_t{h} * dv);
  ctx.dev.matmul(split_rows(x, h), lora.down, nullptr, split_rows(inner.t, h));
  ctx.dev.scale(inner.t, static_cast<float>(lora.scale), inner.t, Accum::kSet);
  ctx.dev.absorb_output(inner.t, lora.up, h, dn, dv, added.t);
  ctx.dev.copy(added.t, y, Accum::kAdd);
}

// A run of segments in the absorbed form over the cache.
void absorbed_from_cache(Ctx& ctx, AttentionWeights& w, const MlaInput& in,
                         std::span<const Segment> run, const BlockContext& b, Tensor y) {
  const ModelConfig& c = b.cfg;
  int h = static_cast<int>(c.num_attention_heads), r = static_cast<int>(c.kv_lora_rank);
  int dn = static_cast<int>(c.qk_nope_head_dim), dr = static_cast<int>(c.qk_rope_head_dim);
  int dv = static_cast<int>(c.v_head_dim);
  int64_t begin = run.front().row_begin, n = run.back().row_begin + run.back().rows - begin;
  Var q = ctx.make_aux(ctx.dtype, n, int64_t{h} * (r + dr));
  const Tensor asked = in.q.t.row_range(begin, n);
  ctx.dev.absorb_query(asked, w.kv_b, h, dn, dr, dv, q.t);
  if (w.kv_b.lora) absorb_query_low_rank(ctx, *w.kv_b.lora, asked, h, dn, dr, dv, q.t);
  AttendParams p{.heads = h,
                 .kv_heads = 1,
                 .dk = r,
                 .dr = dr,
                 .dv = r,
                 .scale = b.scale,
                 .shared_col = static_cast<int>(b.options.kv->layout().second)};
  Var mixed = ctx.make_aux(ctx.dtype, n, int64_t{h} * r);
  ctx.dev.attend_cached(q.t, b.options.kv->pool(b.layer), KvCache::kPageRows,
                        cached_segments(run, *b.options.kv), p, 0, 0, mixed.t);
  const Tensor out = y.row_range(begin, n);
  ctx.dev.absorb_output(mixed.t, w.kv_b, h, dn, dv, out);
  if (w.kv_b.lora) absorb_output_low_rank(ctx, *w.kv_b.lora, mixed.t, h, dn, dv, out);
}

// Attention as in training, over rows that were expanded when they were new.
Var attend_expanded_rows(Ctx& ctx, AttentionWeights& w, const MlaInput& in, const BlockContext& b) {
  const KvCache& kv = *b.options.kv;
  Tensor pool = kv.pool(b.layer);
  int64_t second = kv.layout().second;
  Var rows = matmul(ctx, in.latent, w.kv_b);
  ctx.dev.scatter_rows(rows.t, b.places.t, pool.col_range(0, second));
  ctx.dev.scatter_rows(in.key.t, b.places.t, pool.col_range(second, pool.cols - second));
  AttendParams p = expanded_params(b.cfg, b.scale);
  p.shared_col = static_cast<int>(second);
  Var y = ctx.make_aux(ctx.dtype, in.q.t.rows, int64_t{p.heads} * p.dv);
  ctx.dev.attend_cached(in.q.t, pool, KvCache::kPageRows, cached_segments(b.batch.segments, kv), p,
                        0, p.dk, y.t);
  return y;
}

}  // namespace

Var attend_with_cache(Ctx& ctx, AttentionWeights& w, const MlaInput& in, const BlockContext& b) {
  CHECK(ctx.tape == nullptr);
  if (b.options.kv->layout().head > 0) return attend_expanded_rows(ctx, w, in, b);
  const ModelConfig& c = b.cfg;
  Tensor pool = b.options.kv->pool(b.layer);
  int64_t second = b.options.kv->layout().second;
  ctx.dev.scatter_rows(in.latent.t, b.places.t, pool.col_range(0, second));
  ctx.dev.scatter_rows(in.key.t, b.places.t, pool.col_range(second, pool.cols - second));
  Var y = ctx.make_aux(ctx.dtype, in.q.t.rows, c.num_attention_heads * c.v_head_dim);
  const std::vector<Segment>& segments = b.batch.segments;
  auto absorbed = [&](const Segment& s) {
    MlaForm form = s.mla == MlaForm::kByCost ? cheaper_mla_form(c, s.past, s.rows) : s.mla;
    return form == MlaForm::kAbsorbed;
  };
  for (size_t i = 0; i < segments.size();) {
    size_t end = i;
    while (end < segments.size() && absorbed(segments[end])) ++end;
    if (end > i) {
      absorbed_from_cache(ctx, w, in, std::span(segments).subspan(i, end - i), b, y.t);
      i = end;
    } else {
      expanded_from_cache(ctx, w, in, segments[i++], b, y.t);
    }
  }
  return y;
}

}  // namespace wels
