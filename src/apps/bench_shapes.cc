// Numbers are those of the config.json that each model was published with.
#include "apps/bench_shapes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"

namespace wels {
namespace {

void mla(ModelConfig& c, int64_t heads, int64_t rq, int64_t r, int64_t dn, int64_t dr, int64_t dv) {
  c.attention = AttentionKind::kMla;
  c.num_attention_heads = c.num_key_value_heads = heads;
  c.q_lora_rank = rq;
  c.kv_lora_rank = r;
  c.qk_nope_head_dim = dn;
  c.qk_rope_head_dim = dr;
  c.v_head_dim = dv;
}

void experts(ModelConfig& c, int64_t e, int64_t chosen, int64_t shared, int64_t width,
             int64_t dense_first) {
  c.n_routed_experts = e;
  c.num_experts_per_tok = chosen;
  c.n_shared_experts = shared;
  c.moe_intermediate_size = width;
  c.first_k_dense_replace = dense_first;
}

ModelConfig v2_lite() {
  ModelConfig c;
  c.architecture = Architecture::kDeepseekV2;
  c.vocab_size = 102400;
  c.hidden_size = 2048;
  c.num_hidden_layers = 27;
  c.intermediate_size = 10944;
  mla(c, 16, 0, 512, 128, 64, 128);
  experts(c, 64, 6, 2, 1408, 1);
  c.scoring_func = ScoringFunc::kSoftmax;
  c.topk_method = TopkMethod::kGreedy;
  c.norm_topk_prob = false;
  return c;
}

ModelConfig v3() {
  ModelConfig c;
  c.vocab_size = 129280;
  c.hidden_size = 7168;
  c.num_hidden_layers = 61;
  c.intermediate_size = 18432;
  mla(c, 128, 1536, 512, 128, 64, 128);
  experts(c, 256, 8, 1, 2048, 3);
  c.n_group = 8;
  c.topk_group = 4;
  c.routed_scaling_factor = 2.5;
  return c;
}

ModelConfig tiny() {
  ModelConfig c;
  c.vocab_size = 16384;
  c.hidden_size = 512;
  c.num_hidden_layers = 8;
  c.intermediate_size = 1536;
  mla(c, 8, 256, 128, 64, 32, 64);
  experts(c, 32, 4, 1, 384, 1);
  return c;
}

ModelConfig grouped(Architecture a, int64_t vocab, int64_t d, int64_t layers, int64_t f, int64_t h,
                    int64_t kv, bool tied) {
  ModelConfig c;
  c.architecture = a;
  c.attention = AttentionKind::kGqa;
  c.vocab_size = vocab;
  c.hidden_size = d;
  c.num_hidden_layers = layers;
  c.intermediate_size = f;
  c.num_attention_heads = h;
  c.num_key_value_heads = kv;
  c.head_dim = d / h;
  c.attention_bias = a == Architecture::kQwen2;
  c.tie_word_embeddings = tied;
  return c;
}

struct Shape {
  const char* name;
  ModelConfig (*config)();
};
const Shape kShapes[] = {
    {"deepseek-v2-lite", v2_lite},
    {"deepseek-v3", v3},
    {"qwen2-1.5b",
     [] { return grouped(Architecture::kQwen2, 151936, 1536, 28, 8960, 12, 2, true); }},
    {"qwen2-7b",
     [] { return grouped(Architecture::kQwen2, 152064, 3584, 28, 18944, 28, 4, false); }},
    {"llama3-8b",
     [] { return grouped(Architecture::kLlama, 128256, 4096, 32, 14336, 32, 8, false); }},
    {"tiny", tiny},
};

}  // namespace

std::vector<std::string> published_shape_names() {
  std::vector<std::string> names;
  for (const Shape& s : kShapes) names.emplace_back(s.name);
  return names;
}

ModelConfig published_shape(const std::string& name) {
  for (const Shape& s : kShapes) {
    if (name != s.name) continue;
    ModelConfig c = s.config();
    c.max_position_embeddings = 163840;
    return c;
  }
  throw Error("--shape", fmt::format("unknown shape \"{}\"", name),
              fmt::format("use {}", fmt::join(published_shape_names(), ", ")));
}

}  // namespace wels
