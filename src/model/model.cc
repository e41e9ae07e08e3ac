#include "model/model.h"

#include <algorithm>

#include "base/rng.h"
#include "base/threads.h"
#include "model/block.h"

namespace wels {

std::vector<AttendSegment> own_segments(const Batch& batch) {
  std::vector<AttendSegment> out;
  for (const Segment& s : batch.segments) out.push_back({s.row_begin, s.rows, s.row_begin, s.rows});
  return out;
}

std::vector<CachedSegment> cached_segments(std::span<const Segment> run, const KvCache& kv) {
  std::vector<CachedSegment> out;
  for (const Segment& s : run) {
    out.push_back(
        {s.row_begin - run.front().row_begin, s.rows, s.past + s.rows, kv.pages(s.sequence)});
  }
  return out;
}

Model::Model(ModelConfig cfg) : cfg_(std::move(cfg)) {
  cfg_.validate();
  count_parameters(cfg_);  // or refuses what no file can hold
  weights_ = make_weights(cfg_);
}

void Model::allocate(DType dtype) {
  CHECK(dtype == DType::kF32 || dtype == DType::kF64);
  allocate(
      [dtype](const WeightSpec& s) { return s.kind == WeightKind::kBuffer ? DType::kF32 : dtype; });
}

// One block of memory per weight, experts one after another.
void Model::allocate(const std::function<DType(const WeightSpec&)>& dtype_of) {
  visit_weights(cfg_, weights_,
                [&](Weight& w, const WeightSpec& s) { w.value = stack(dtype_of(s), s); });
}

void Model::init(DType dtype, uint64_t seed, bool trainable) {
  allocate(dtype);
  visit_weights(cfg_, weights_, [&](Weight& w, const WeightSpec& s) {
    bool random = s.kind == WeightKind::kMatrix || s.kind == WeightKind::kEmbedding;
    double constant = s.kind == WeightKind::kNorm ? 1.0 : 0.0;
    parallel_tasks(s.experts, [&](int64_t e) {
      Rng rng(seed, hash_name(s.name) + static_cast<uint64_t>(e) * 0x9E3779B97F4A7C15ull);
      const Tensor& t = w.value[static_cast<size_t>(e)];
      for (int64_t i = 0; i < s.rows * s.cols; ++i) {
        double value = random ? rng.normal() * cfg_.initializer_range : constant;
        if (t.dtype == DType::kF64) {
          static_cast<double*>(t.data)[i] = value;
        } else {
          static_cast<float*>(t.data)[i] = static_cast<float>(value);
        }
      }
    });
    ++w.version;
  });
  if (trainable) make_gradients();
}

std::vector<Tensor> Model::stack(DType dtype, const WeightSpec& s) {
  int64_t bytes = s.rows * row_bytes(dtype, s.cols), all = bytes * s.experts;
  std::shared_ptr<void> memory(allocate_host(all), [all](void* p) { free_host(p, all); });
  memory_.push_back(memory);
  std::vector<Tensor> out;
  for (int64_t e = 0; e < s.experts; ++e) {
    out.emplace_back(static_cast<uint8_t*>(memory.get()) + e * bytes, dtype, s.rows, s.cols);
  }
  return out;
}

void Model::make_gradients() {
  visit_weights(cfg_, weights_, [&](Weight& w, const WeightSpec& s) {
    if (s.kind == WeightKind::kBuffer) return;
    CHECK(w.value[0].dtype == DType::kF32 || w.value[0].dtype == DType::kF64);
    w.grad = stack(w.value[0].dtype, s);
  });
  clear_gradients();
}

void Model::clear_gradients() {
  visit_parameters(cfg_, weights_, [&](Weight& w, const WeightSpec&) { w.fresh_grad = true; });
}

Positions Model::positions(Ctx& ctx, const std::vector<int32_t>& pos) {
  if (!rope_) rope_ = std::make_unique<RopeTable>(cfg_, ctx.stat_dtype());
  int32_t last = pos.empty() ? 0 : *std::max_element(pos.begin(), pos.end());
  rope_->reserve(last + 1);
  return {ctx.make_ids(pos.data(), static_cast<int64_t>(pos.size())), rope_->cos(), rope_->sin()};
}

Var Model::block(Ctx& ctx, BlockWeights& w, const Var& x, const BlockContext& b) {
  float eps = static_cast<float>(cfg_.rms_norm_eps);
  Var normed = rms_norm(ctx, x, w.attention_norm, eps);
  Var attended = add(
      ctx, x, cfg_.is_mla() ? mla(ctx, w.attention, normed, b) : gqa(ctx, w.attention, normed, b));
  Var inner = rms_norm(ctx, attended, w.mlp_norm, eps);
  return add(ctx, attended, w.moe ? moe(ctx, w.experts, inner, b) : mlp(ctx, w.mlp, inner));
}

Var Model::hidden(Ctx& ctx, const Batch& batch, const ForwardOptions& options,
                  ForwardRecord* record, Var* residual) {
  CHECK(options.kv == nullptr || ctx.tape == nullptr);
  BlockContext b{.cfg = cfg_,
                 .options = options,
                 .batch = batch,
                 .pos = positions(ctx, batch.pos),
                 .segments = own_segments(batch),
                 .places = {},
                 .layer = 0,
                 .record = record,
                 .scale = softmax_scale(cfg_)};
  if (options.kv) {
    std::vector<int32_t> places = options.kv->reserve(batch);
    b.places = ctx.make_ids(places.data(), batch.rows());
  }
  Var ids = ctx.make_ids(batch.tokens.data(), batch.rows());
  Var x = embed(ctx, ids, weights_.embed);
  b.observe("hidden.0", x);
  for (size_t i = 0; i < weights_.blocks.size(); ++i) {
    b.layer = static_cast<int64_t>(i);
    BlockWeights& w = weights_.blocks[i];
    if (ctx.recompute && ctx.tape) {
      // Recomputed blocks must not record their routing twice.
      auto fn = [this, &w, b, first = std::make_shared<bool>(true)](Ctx& c, const Var& in) {
        BlockContext bc = b;
        if (!std::exchange(*first, false)) bc.record = nullptr;
        return block(c, w, in, bc);
      };
      x = recompute(ctx, x, fn);
    } else {
      x = block(ctx, w, x, b);
    }
    b.observe("hidden." + std::to_string(i + 1), x);
  }
  if (options.kv) options.kv->commit(batch);
  if (residual) *residual = x;
  Var y = rms_norm(ctx, x, weights_.final_norm, static_cast<float>(cfg_.rms_norm_eps));
  b.observe("final_norm", y);
  return y;
}

// From the rows of the last depth that go on, and the tokens after them, to this depth's stream.
Var Model::mtp_block(Ctx& ctx, int64_t k, const Var& previous, const BlockContext& b) {
  MtpWeights& w = weights_.mtp[static_cast<size_t>(k)];
  float eps = static_cast<float>(cfg_.rms_norm_eps);
  Var ids = ctx.make_ids(b.batch.tokens.data(), b.batch.rows());
  Var embedded = rms_norm(ctx, embed(ctx, ids, weights_.embed), w.embed_norm, eps);
  Var state = rms_norm(ctx, previous, w.hidden_norm, eps);
  Var input = matmul(ctx, concat(ctx, embedded, state), w.projection);
  std::string name = "mtp" + std::to_string(k);
  b.observe(name + ".input", input);
  // The block's residual stream starts here, in the residual's dtype.
  Var x = to_residual(ctx, input);
  x = block(ctx, w.block, x, b);
  b.observe(name + ".hidden", x);
  return x;
}

Model::MtpOut Model::mtp(Ctx& ctx, int64_t k, const Var& previous,
                         const std::vector<int32_t>& previous_rows, const Batch& batch,
                         const ForwardOptions& options, ForwardRecord* record) {
  CHECK(options.kv == nullptr);
  MtpWeights& w = weights_.mtp[static_cast<size_t>(k)];
  float eps = static_cast<float>(cfg_.rms_norm_eps);
  // Row i of a segment goes on if the segment has a token i + k + 1.
  MtpOut out;
  std::vector<int32_t> kept;  // rows of `previous`
  Batch sub;
  size_t at = 0;
  for (const Segment& s : batch.segments) {
    int64_t count = std::max<int64_t>(s.rows - k - 1, 0);
    std::vector<int32_t> next;
    for (int64_t i = 0; i < s.rows - k && i < static_cast<int64_t>(s.rows); ++i, ++at) {
      if (i >= count) continue;
      kept.push_back(static_cast<int32_t>(at));
      out.rows.push_back(previous_rows[at]);
      next.push_back(batch.tokens[static_cast<size_t>(s.row_begin + i + k + 1)]);
    }
    if (count > 0) sub.append(next);
  }
  CHECK(at == previous_rows.size());
  if (sub.rows() == 0) return out;
  BlockContext b{.cfg = cfg_,
                 .options = options,
                 .batch = sub,
                 .pos = positions(ctx, sub.pos),
                 .segments = own_segments(sub),
                 .places = {},
                 .layer = cfg_.num_hidden_layers + k,
                 .record = record,
                 .scale = softmax_scale(cfg_)};
  Var x = mtp_block(ctx, k, select_rows(ctx, previous, kept), b);
  out.stream = x;
  out.hidden = rms_norm(ctx, x, w.head_norm, eps);
  return out;
}

Var Model::draft(Ctx& ctx, const Var& previous, const Batch& next, KvCache& kv) {
  CHECK(!weights_.mtp.empty());
  ForwardOptions options;
  options.kv = &kv;
  BlockContext b{.cfg = cfg_,
                 .options = options,
                 .batch = next,
                 .pos = positions(ctx, next.pos),
                 .segments = {},
                 .places = {},
                 .layer = cfg_.num_hidden_layers,
                 .record = nullptr,
                 .scale = softmax_scale(cfg_)};
  std::vector<int32_t> places = kv.reserve_module(next);
  b.places = ctx.make_ids(places.data(), next.rows());
  Var x = mtp_block(ctx, 0, previous, b);
  return rms_norm(ctx, x, weights_.mtp[0].head_norm, static_cast<float>(cfg_.rms_norm_eps));
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
