#include "model/model.h"

#include <algorithm>

#include "model/block.h"

namespace wels {

Model::Model(ModelConfig cfg) : cfg_(std::move(cfg)) {
  cfg_.validate();
  count_parameters(cfg_);  // or refuses what no file can hold
  weights_ = make_weights(cfg_);
}

// x [n, d]: the embedding, L blocks that each add to it, the final norm.
Var Model::hidden(Ctx& ctx, const Batch& batch, const ForwardOptions& options,
                  ForwardRecord* record, Var* residual) {
  CHECK(options.kv == nullptr || ctx.tape == nullptr);
  BlockContext b = context(ctx, batch, options, 0, record);
  if (options.kv) b.places = ctx.make_ids(options.kv->reserve(batch));
  Var x = embed(ctx, ctx.make_ids(batch.tokens), weights_.embed);
  b.observe("hidden.0", x);
  for (BlockWeights& w : weights_.blocks) {
    x = ctx.recompute && ctx.tape ? recomputed_block(ctx, w, x, b) : block(ctx, w, x, b);
    ++b.layer;
    b.observe("hidden." + std::to_string(b.layer), x);
  }
  if (options.kv) options.kv->commit(batch);
  if (residual) *residual = x;
  Var y = rms_norm(ctx, x, weights_.final_norm, static_cast<float>(cfg_.rms_norm_eps));
  b.observe("final_norm", y);
  return y;
}

// x + attention(norm(x)), then that + feed-forward(norm(that)).
Var Model::block(Ctx& ctx, BlockWeights& w, const Var& x, const BlockContext& b) {
  float eps = static_cast<float>(cfg_.rms_norm_eps);
  Var normed = rms_norm(ctx, x, w.attention_norm, eps);
  Var attended = add(
      ctx, x, cfg_.is_mla() ? mla(ctx, w.attention, normed, b) : gqa(ctx, w.attention, normed, b));
  Var inner = rms_norm(ctx, attended, w.mlp_norm, eps);
  return add(ctx, attended, w.moe ? moe(ctx, w.experts, inner, b) : mlp(ctx, w.mlp, inner));
}

// The same, of which the backward keeps x alone.
Var Model::recomputed_block(Ctx& ctx, BlockWeights& w, const Var& x, const BlockContext& b) {
  // What runs again must not record its routing twice.
  auto fn = [this, &w, b, first = std::make_shared<bool>(true)](Ctx& c, const Var& in) {
    BlockContext bc = b;
    if (!std::exchange(*first, false)) bc.record = nullptr;
    return block(c, w, in, bc);
  };
  return recompute(ctx, x, fn);
}

std::vector<AttendSegment> own_segments(const Batch& batch) {
  std::vector<AttendSegment> own;
  for (const Segment& s : batch.segments) own.push_back({s.row_begin, s.rows, s.row_begin, s.rows});
  return own;
}

BlockContext Model::context(Ctx& ctx, const Batch& batch, const ForwardOptions& options,
                            int64_t layer, ForwardRecord* record) {
  return {.cfg = cfg_,
          .options = options,
          .batch = batch,
          .pos = positions(ctx, batch.pos),
          .segments = own_segments(batch),
          .places = {},
          .layer = layer,
          .record = record,
          .scale = softmax_scale(cfg_)};
}

Positions Model::positions(Ctx& ctx, const std::vector<int32_t>& pos) {
  if (!rope_) rope_ = std::make_unique<RopeTable>(cfg_, ctx.stat_dtype());
  int32_t last = pos.empty() ? 0 : *std::max_element(pos.begin(), pos.end());
  rope_->reserve(last + 1);
  return {ctx.make_ids(pos), rope_->cos(), rope_->sin()};
}

std::vector<CachedSegment> cached_segments(std::span<const Segment> run, const KvCache& kv) {
  std::vector<CachedSegment> out;
  for (const Segment& s : run) {
    out.push_back(
        {s.row_begin - run.front().row_begin, s.rows, s.past + s.rows, kv.pages(s.sequence)});
  }
  return out;
}

MlaForm Model::cheaper_form(int64_t past, int64_t rows) const {
  return cheaper_mla_form(cfg_, past, rows);
}

Var Model::logits(Ctx& ctx, const Var& h) {
  Var y = ctx.make_aux(ctx.stat_dtype(), h.t.rows, cfg_.vocab_size);
  ctx.dev.matmul(h.t, head(), nullptr, y.t);
  return y;
}

}  // namespace wels
