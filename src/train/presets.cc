#include "train/presets.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace wels {
namespace {

PresetSettings shape(int64_t d, int64_t layers, int64_t experts, int64_t chosen,
                     int64_t expert_width, int64_t vocab) {
  PresetSettings s;
  ModelConfig& c = s.model;
  c.architecture = Architecture::kDeepseekV3;
  c.attention = AttentionKind::kMla;
  c.vocab_size = vocab;
  c.hidden_size = d;
  c.num_hidden_layers = layers;
  c.intermediate_size = 3 * d;
  c.num_attention_heads = c.num_key_value_heads = d / 32;
  c.q_lora_rank = d / 2;
  c.kv_lora_rank = d / 4;
  c.qk_nope_head_dim = 32;
  c.qk_rope_head_dim = 16;
  c.v_head_dim = 32;
  c.n_routed_experts = experts;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = chosen;
  c.moe_intermediate_size = expert_width;
  c.first_k_dense_replace = 1;
  c.scoring_func = ScoringFunc::kSigmoid;
  c.topk_method = TopkMethod::kNoauxTc;
  c.n_group = c.topk_group = 1;
  c.norm_topk_prob = true;
  c.routed_scaling_factor = 1.0;
  c.num_nextn_predict_layers = 1;
  c.max_position_embeddings = 4096;
  c.initializer_range = 0.02;
  c.torch_dtype = "float32";
  double width = static_cast<double>(d);
  s.learning_rate = 2e-3 * std::sqrt(128.0 / width);
  s.batch_tokens =
      std::max<int64_t>(4096, static_cast<int64_t>(std::lround(8192 * width / 128 / 4096)) * 4096);
  s.sequence_length = 256;
  return s;
}

}  // namespace

PresetSettings preset(const std::string& name) {
  if (name == "nano") return shape(128, 4, 8, 2, 96, 512);
  if (name == "micro") return shape(192, 6, 16, 2, 128, 2048);
  if (name == "mini") return shape(256, 8, 16, 2, 192, 4096);
  if (name == "small") return shape(384, 10, 32, 4, 256, 8192);
  if (name == "base") return shape(512, 12, 64, 6, 256, 16384);
  throw Error("--preset", "unknown preset \"" + name + "\"",
              "use nano, micro, mini, small or base");
}

void make_dense(ModelConfig& c) {
  if (c.n_routed_experts == 0) return;
  int64_t dense = c.first_k_dense_replace, moe = c.num_hidden_layers - dense;
  int64_t width = c.moe_intermediate_size * (c.num_experts_per_tok + c.n_shared_experts);
  c.intermediate_size = (c.intermediate_size * dense + width * moe) / c.num_hidden_layers / 16 * 16;
  c.n_routed_experts = c.n_shared_experts = c.num_experts_per_tok = c.moe_intermediate_size = 0;
}

PresetSettings preset_of_depth(int depth) {
  if (depth < 2 || depth > 32)
    throw Error("--depth", fmt::format("{} is out of range", depth), "use 2 to 32");
  int64_t n = depth, d = 32 * n;
  if (n > 8) d = (32 * n + 32 * (n - 8) + 63) / 64 * 64;
  int64_t experts = n < 6 ? 8 : n < 10 ? 16 : n < 12 ? 32 : 64;
  int64_t chosen = n < 10 ? 2 : n < 12 ? 4 : 6;
  int64_t width = std::clamp<int64_t>(d * 3 / 4 / 32 * 32, 32, 256);
  int64_t vocab = n < 5 ? 512 : n < 7 ? 2048 : n < 9 ? 4096 : n < 12 ? 8192 : 16384;
  return shape(d, n, experts, chosen, width, vocab);
}

}  // namespace wels
