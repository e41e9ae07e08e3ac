// Feed-forward: SwiGLU, and DeepSeek's mixture of experts (V3 eq. 12-20): shared experts see every
// token, k of e fine-grained routed experts are chosen per token; no token is dropped. Rows are
// sorted by expert once, each expert's matrix products run over its own contiguous rows, and the
// results are gathered back with their weights.
#include "model/block.h"

namespace wels {

Var mlp(Ctx& ctx, MlpWeights& w, const Var& x) {
  return matmul(ctx, gated_matmul(ctx, x, w.gate, w.up), w.down);
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
  p.normalize = c.norm_topk_prob && c.num_experts_per_tok > 1;
  // V2's softmax router either normalises or scales; V3's does both.
  p.scale = p.normalize && !p.sigmoid ? 1.0 : c.routed_scaling_factor;
  return p;
}

Var moe(Ctx& ctx, MoeWeights& w, const Var& x, const BlockContext& b) {
  RouteParams p = route_params(b.cfg);
  Var logits = matmul(ctx, x, w.router);
  Tensor bias = b.cfg.has_router_bias() ? w.bias.value[0] : Tensor();
  Routed routed = route(ctx, logits, bias, p, b.options.balance_factor, b.segments);
  std::string name = "layer" + std::to_string(b.layer);
  b.observe(name + ".expert", routed.expert);
  b.observe(name + ".weight", routed.weight);
  if (b.record) b.record->routed.push_back({b.layer, routed});
  Var rows = dispatch_rows(ctx, x, routed);
  Var inner = gated_matmul(ctx, rows, w.experts.gate, w.experts.up, routed.offsets);
  Var out = grouped_matmul(ctx, inner, w.experts.down, routed.offsets);
  Var shared = b.cfg.n_shared_experts > 0 ? mlp(ctx, w.shared, x) : Var();
  return combine(ctx, out, routed, shared);
}

}  // namespace wels
