// config.json of published models, for tests.
#pragma once
#include <nlohmann/json.hpp>

namespace wels {

inline nlohmann::json v3_json() {
  return nlohmann::json::parse(
      R"({"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168, "num_hidden_layers": 61, "intermediate_size": 18432,
    "num_attention_heads": 128,
    "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048, "first_k_dense_replace": 3, "moe_layer_freq": 1, "n_group": 8,
    "topk_group": 4,
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1, "max_position_embeddings": 163840, "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096, "type": "yarn"}, "bos_token_id": 0, "eos_token_id": 1,
    "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
    "activation_scheme": "dynamic", "weight_block_size": [128, 128]}})");
}
inline nlohmann::json v2_json() {
  nlohmann::json j = v3_json();
  j.update(nlohmann::json::parse(
      R"({"architectures": ["DeepseekV2ForCausalLM"], "vocab_size": 102400, "hidden_size": 5120,
    "num_hidden_layers": 60, "intermediate_size": 12288, "n_routed_experts": 160,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6, "moe_intermediate_size": 1536, "first_k_dense_replace": 1,
    "n_group": 8, "topk_group": 3,
    "scoring_func": "softmax", "topk_method": "group_limited_greedy", "norm_topk_prob": false,
    "routed_scaling_factor": 16.0})"));
  return j;
}
inline nlohmann::json v2_lite_json() {
  nlohmann::json j = v2_json();
  j.update(nlohmann::json::parse(
      R"({"hidden_size": 2048, "num_hidden_layers": 27, "intermediate_size": 10944,
    "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": null,
    "n_routed_experts": 64,
    "moe_intermediate_size": 1408, "n_group": 1, "topk_group": 1, "topk_method": "greedy",
    "routed_scaling_factor": 1.0})"));
  return j;
}
inline nlohmann::json qwen2_json() {
  return nlohmann::json::parse(
      R"({"architectures": ["Qwen2ForCausalLM"], "vocab_size": 151936, "hidden_size": 1536,
    "num_hidden_layers": 28, "intermediate_size": 8960, "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-06, "rope_theta": 10000,
    "tie_word_embeddings": false,
    "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 21,
    "torch_dtype": "bfloat16"})");
}

}  // namespace wels
