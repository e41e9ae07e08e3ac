// The smallest configurations of both families that tests of the layers above the model share; a
// test changes what it is about.
#pragma once
#include "formats/model_config.h"

namespace wels {

// DeepSeek-V3's: MLA, one dense and one MoE block, no MTP.
inline ModelConfig tiny_moe_config(int64_t vocab) {
  ModelConfig c;
  c.architecture = Architecture::kDeepseekV3;
  c.attention = AttentionKind::kMla;
  c.vocab_size = vocab;
  c.hidden_size = 32;
  c.num_hidden_layers = 2;
  c.intermediate_size = 48;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.q_lora_rank = 0;
  c.kv_lora_rank = 24;
  c.qk_nope_head_dim = 12;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 10;
  c.moe_intermediate_size = 16;
  c.n_routed_experts = 4;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.first_k_dense_replace = 1;
  c.n_group = c.topk_group = 1;
  c.routed_scaling_factor = 1.0;
  c.max_position_embeddings = 4096;
  c.initializer_range = 0.3;
  return c;
}

// Qwen2's: grouped queries with bias, dense.
inline ModelConfig tiny_dense_config(int64_t vocab) {
  ModelConfig c;
  c.architecture = Architecture::kQwen2;
  c.attention = AttentionKind::kGqa;
  c.attention_bias = true;
  c.vocab_size = vocab;
  c.hidden_size = 32;
  c.num_hidden_layers = 2;
  c.intermediate_size = 48;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.head_dim = 16;
  c.max_position_embeddings = 4096;
  c.initializer_range = 0.3;
  return c;
}

}  // namespace wels
