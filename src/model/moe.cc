// Feed-forward: SwiGLU, and DeepSeek's mixture of experts (V3 eq. 12-20): shared experts see every
// token, k of e fine-grained routed experts are chosen per token; no token is dropped. Rows are
// sorted by expert once, each expert's matrix products run over its own contiguous rows, and the
// results are gathered back with their weights.
#include "base/check.h"
#include "model/block.h"

namespace wels {

// SwiGLU: W_down (silu(W_gate x) ∘ W_up x). [n, d] → [n, f] → [n, d]
Var mlp(Ctx& ctx, MlpWeights& w, const Var& x) {
  return matmul(ctx, gated_matmul(ctx, x, w.gate, w.up), w.down);
}

// The experts that the rows were given elsewhere for this block; empty: none were.
static Var given_experts(Ctx& ctx, const BlockContext& b);

// x [n, d] → [n, d]; t is one of the n tokens, i one of the e experts, j one of a token's k
// choices.
Var moe(Ctx& ctx, MoeWeights& w, const Var& x, const BlockContext& b) {
  RouteParams p = route_params(b.cfg);
  // (15) Before the sigmoid: how well expert i suits token t, x_t · e_i. [n, e] f32
  Var logits = matmul(ctx, x, w.router);
  // (15, 16) s = sigmoid(logits), V2: softmax; the k experts whose s + bias is largest, within the
  // token's best groups; the bias only chooses. (13, 14) Their weights g_tj = s_tj / Σ_j s_tj,
  // times routed_scaling_factor. [n, k]
  Tensor bias = b.cfg.has_router_bias() ? w.bias.value[0] : Tensor();
  Routed routed =
      route(ctx, logits, bias, given_experts(ctx, b), p, b.options.balance_factor, b.segments);
  std::string name = "layer" + std::to_string(b.layer);
  b.observe(name + ".expert", routed.expert);
  b.observe(name + ".weight", routed.weight);
  if (b.record) b.record->routed.push_back({b.layer, routed});
  // x_t once for each choice, sorted by expert: row offsets[i] is expert i's first. [n·k, d]
  Var rows = dispatch_rows(ctx, x, routed);
  // FFN_i(row) with the row's own expert i, as mlp above. [n·k, fe], then [n·k, d]
  Var inner = gated_matmul(ctx, rows, w.experts.gate, w.experts.up, routed.offsets);
  Var out = grouped_matmul(ctx, inner, w.experts.down, routed.offsets);
  // (12) y_t = FFN_shared(x_t) + Σ_j g_tj FFN_tj(x_t). The residual is the block's. [n, d]
  Var shared = b.cfg.n_shared_experts > 0 ? mlp(ctx, w.shared, x) : Var();
  return combine(ctx, out, routed, shared);
}

RouteParams route_params(const ModelConfig& c) {
  RouteParams p;
  p.experts = static_cast<int>(c.n_routed_experts);
  p.top_k = static_cast<int>(c.num_experts_per_tok);
  bool grouped = c.topk_method != TopkMethod::kGreedy;
  p.groups = grouped ? static_cast<int>(c.n_group) : 1;
  p.top_groups = grouped ? static_cast<int>(c.topk_group) : 1;
  p.sigmoid = c.scoring_func == ScoringFunc::kSigmoid;
  p.group_top2 = c.topk_method == TopkMethod::kNoauxTc;
  // A single expert too, whose weight is then 1 (V2's published code leaves it as it is, DeepSeek's
  // and transformers' V3 do not).
  p.normalize = c.norm_topk_prob;
  p.scale = c.expert_scale();
  return p;
}

static Var given_experts(Ctx& ctx, const BlockContext& b) {
  const ModelConfig& c = b.cfg;
  if (b.batch.experts.empty() || b.layer >= c.num_hidden_layers) return {};
  int64_t k = c.num_experts_per_tok, blocks = 0, before = 0, n = b.batch.rows();
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    before += i < b.layer && c.is_moe_layer(i);
    blocks += c.is_moe_layer(i);
  }
  CHECK(static_cast<int64_t>(b.batch.experts.size()) == n * blocks * k);
  std::vector<int32_t> own;
  own.reserve(static_cast<size_t>(n * k));
  for (int64_t row = 0; row < n; ++row) {
    auto from = b.batch.experts.begin() + (row * blocks + before) * k;
    own.insert(own.end(), from, from + k);
  }
  Var given = ctx.make_aux(DType::kI32, n, k);
  ctx.dev.upload(own.data(), given.t);
  return given;
}

}  // namespace wels
