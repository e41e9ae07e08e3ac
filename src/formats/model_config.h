// ModelConfig: everything that decides a model's shape and arithmetic, as plain numbers. Names are
// those of Hugging Face's config.json (hf_config.h reads and writes it); docs/glossary.md maps them
// to the dimension letters of the code. Sources: DeepSeek-V2 (arXiv 2405.04434), DeepSeek-V3 (arXiv
// 2412.19437) section 4.2; Llama 3 and Qwen2 model cards.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace wels {

enum class Architecture { kDeepseekV2, kDeepseekV3, kQwen2, kLlama };
enum class AttentionKind { kMla, kGqa };  // multi-head latent attention | grouped-query attention
enum class RopeScaling { kNone, kLinear, kYarn, kLlama3 };  // linear: all angles / factor
enum class ScoringFunc { kSoftmax, kSigmoid };              // router affinity: V2 | V3
enum class TopkMethod {
  kGreedy,              // the k largest scores (V2-Lite)
  kGroupLimitedGreedy,  // group score = its largest score, k largest within the best topk_group
                        // groups (V2)
  kNoauxTc,  // as above with the selection bias added, group score = sum of its two largest (V3)
};

struct RopeConfig {
  double theta = 10000.0;                        // rope_theta: base of the angles
  RopeScaling scaling = RopeScaling::kNone;      // rope_scaling.type or .rope_type
  double factor = 1.0;                           // context extension factor s
  int64_t original_max_position_embeddings = 0;  // context before extension
  // yarn: rotations over the original context that bound the ramp.
  double beta_fast = 32.0, beta_slow = 1.0;
  // yarn, DeepSeek: softmax scale (0.1 m ln s + 1)^2, cos/sin by their ratio.
  double mscale = 1.0, mscale_all_dim = 0.0;
  double attention_factor = 0.0;  // yarn, Qwen2 and Llama: factor of cos and sin; 0: 0.1 ln s + 1
  // llama3: wavelength bounds as fractions of the original context.
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  bool operator==(const RopeConfig&) const = default;
};

// YaRN's magnitude for a context extended by that factor: 0.1 m ln s + 1.
double yarn_mscale(double factor, double mscale);

// quantization_config of an FP8 checkpoint: E4M3 weights with one f32 scale per block (V3
// section 3.3).
struct Fp8Config {
  // weight_block_size, 128 x 128; 0: the checkpoint is not FP8.
  int64_t block_rows = 0, block_cols = 0;
  bool ue8m0 = false;  // scale_fmt "ue8m0": scales are powers of two (V3.1)
  bool operator==(const Fp8Config&) const = default;
};

struct ModelConfig {
  Architecture architecture = Architecture::kDeepseekV3;
  AttentionKind attention = AttentionKind::kMla;  // follows from the architecture
  int64_t vocab_size = 0;                         // v: rows of the embedding and of the head
  int64_t hidden_size = 0;                        // d: width of the residual stream
  int64_t num_hidden_layers = 0;                  // L: blocks, without MTP
  int64_t intermediate_size = 0;                  // f: FFN width of a dense block
  int64_t num_attention_heads = 0;                // h: query heads
  int64_t num_key_value_heads = 0;                // GQA: key/value heads, a divisor of h; MLA: h

  // Attention, GQA only.
  int64_t head_dim = 0;         // width of a head; need not be hidden_size / h
  bool attention_bias = false;  // bias on q, k and v (Qwen2: always)

  // Attention, MLA only.
  // rq: query compression rank; 0: queries are projected directly (V2-Lite).
  int64_t q_lora_rank = 0;
  int64_t kv_lora_rank = 0;      // r: rank of the cached latent
  int64_t qk_nope_head_dim = 0;  // dn: query/key width per head without rotation
  // dr: rotated query/key width per head; the rotated key is shared by all heads.
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;  // dv: value width per head

  // Mixture of experts.
  int64_t n_routed_experts = 0;  // e: routed experts per MoE block; 0: every block is dense
  // Experts that every token uses, stored as one FFN of that many times the width.
  int64_t n_shared_experts = 0;
  int64_t num_experts_per_tok = 0;    // k: routed experts per token
  int64_t moe_intermediate_size = 0;  // fe: FFN width of one expert
  int64_t first_k_dense_replace = 0;  // this many first blocks are dense
  // Block i is MoE if i >= first_k_dense_replace and i % moe_layer_freq == 0.
  int64_t moe_layer_freq = 1;
  ScoringFunc scoring_func = ScoringFunc::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;
  int64_t n_group = 1;         // groups the experts are divided into
  int64_t topk_group = 1;      // groups a token may use
  bool norm_topk_prob = true;  // the chosen weights are divided by their sum, also a single one
  double routed_scaling_factor = 1.0;  // what they are multiplied by: see expert_scale
  double aux_loss_alpha = 0.0;  // factor of V2's balance losses as its config names it; V3 has none
  bool seq_aux = true;          // V2: balance loss per sequence instead of per batch

  // Multi-token prediction (V3 section 2.2).
  int64_t num_nextn_predict_layers = 0;  // MTP modules, stored as layers L, L+1, ...
  // Hidden state fed to MTP: after (true) or before the final norm; under "wels".
  bool mtp_hidden_after_norm = true;

  RopeConfig rope;
  int64_t max_position_embeddings = 0;  // longest context
  double rms_norm_eps = 1e-6;           // of every norm
  bool tie_word_embeddings = false;     // the head is the embedding matrix
  double initializer_range = 0.02;      // standard deviation of the initial weights
  int64_t bos_token_id = -1;            // -1: none
  std::vector<int64_t> eos_token_ids;   // any of them ends a text
  int64_t pad_token_id = -1;            // -1: none
  // float32, bfloat16 or float16: how the checkpoint stores its weights.
  std::string torch_dtype = "bfloat16";
  Fp8Config fp8;

  bool operator==(const ModelConfig&) const = default;

  bool is_mla() const { return attention == AttentionKind::kMla; }
  // Whether block `layer` (MTP modules are blocks L, L+1, ...) has experts.
  bool is_moe_layer(int64_t layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  // Whether the router has a selection bias (e_score_correction_bias).
  bool has_router_bias() const {
    return n_routed_experts > 0 && topk_method == TopkMethod::kNoauxTc;
  }
  // What the chosen weights, normalised or not, are multiplied by. Softmax routers (V2) either
  // normalise or scale; sigmoid routers (V3) do both.
  double expert_scale() const {
    bool either = norm_topk_prob && scoring_func == ScoringFunc::kSoftmax;
    return either ? 1.0 : routed_scaling_factor;
  }
  // Width of a query or key head as the dot product sees it.
  int64_t qk_head_dim() const { return is_mla() ? qk_nope_head_dim + qk_rope_head_dim : head_dim; }
  // Values cached per token and layer: latent + rotated key for MLA, keys + values for GQA.
  int64_t kv_values_per_token() const {
    return is_mla() ? kv_lora_rank + qk_rope_head_dim : 2 * num_key_value_heads * head_dim;
  }

  // Throws Error(where, which dimensions do not fit, what would). Every model that is built has
  // passed it.
  void validate(const std::string& where = "config.json") const;
};

// Leaves out bos, eos and pad ids that are no token of the vocabulary, with a note of each (-1, how
// some write "none", without). `where` names the file.
void drop_unknown_tokens(ModelConfig& cfg, const std::string& where);

const char* architecture_name(Architecture a);  // "DeepseekV3ForCausalLM"

}  // namespace wels
