// What visit_weights is called for before there are values: empty weights and their number.
#include "model/weights.h"

#include <fmt/format.h>

#include "base/error.h"

namespace wels {

ModelWeights make_weights(const ModelConfig& cfg) {
  ModelWeights w;
  w.blocks.resize(static_cast<size_t>(cfg.num_hidden_layers));
  w.mtp.resize(static_cast<size_t>(cfg.num_nextn_predict_layers));
  int64_t layer = 0;
  for (BlockWeights& block : w.blocks) block.moe = cfg.is_moe_layer(layer++);
  for (MtpWeights& mtp : w.mtp) mtp.block.moe = cfg.is_moe_layer(layer++);
  visit_weights(cfg, w, [](Weight& x, const WeightSpec& s) {
    x.name = s.name;
    x.rows = s.rows;
    x.cols = s.cols;
    x.full_precision = s.full_precision;
    x.fp8 = s.fp8;
  });
  return w;
}

ParameterCount count_parameters(const ModelConfig& cfg) {
  using Wide = __int128;  // no sum of products of allowed dimensions wraps
  Wide total = 0, active = 0, mtp = 0, mtp_active = 0;
  ParameterCount out;
  ModelWeights weights = make_weights(cfg);
  visit_weights(cfg, weights, [&](Weight& w, const WeightSpec& s) {
    if (s.kind == WeightKind::kBuffer) {
      out.router_bias += s.cols;
      return;
    }
    Wide one = Wide(s.rows) * s.cols;
    bool main = s.layer < cfg.num_hidden_layers;
    (main ? total : mtp) += one * s.experts;
    (main ? active : mtp_active) += one * (s.experts > 1 ? cfg.num_experts_per_tok : 1);
    if (&w == &weights.embed) out.embedding = s.rows * s.cols;
    if (&w == &weights.head) out.head = s.rows * s.cols;
  });
  if (total + mtp > Wide(int64_t{1} << 60)) {
    throw Error("config.json",
                fmt::format("{:.3g} parameters are beyond what a file can hold",
                            static_cast<double>(total + mtp)),
                "check the dimensions");
  }
  out.total = static_cast<int64_t>(total);
  out.active = static_cast<int64_t>(active);
  out.mtp = static_cast<int64_t>(mtp);
  out.mtp_active = static_cast<int64_t>(mtp_active);
  return out;
}

}  // namespace wels
