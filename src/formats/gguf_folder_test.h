// A Hugging Face folder and the GGUF file made from it, for tests: what of the one the other holds.
#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "formats/gguf_deepseek.h"
#include "formats/hf_config.h"
#include "formats/safetensors.h"

namespace wels {

// N of "model.layers.N.…"; -1: the tensor is of no layer.
inline int64_t layer_of_tensor(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  int64_t layer = -1;
  if (name.starts_with(kPrefix))
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer;
}

// The config of a folder without the last MTP modules of which the weights have no tensor.
inline ModelConfig config_of_folder(const std::string& folder) {
  ModelConfig c = load_hf_config(folder);
  SafetensorsReader weights(folder);
  int64_t last = -1;
  for (const TensorEntry& e : weights.tensors()) last = std::max(last, layer_of_tensor(e.name));
  c.num_nextn_predict_layers =
      std::clamp<int64_t>(last + 1 - c.num_hidden_layers, 0, c.num_nextn_predict_layers);
  return c;
}

// Why no GGUF file holds such a model; empty: one does.
inline std::string beyond_gguf(const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  if (r.scaling == RopeScaling::kLlama3 && (r.low_freq_factor != 1 || r.high_freq_factor != 4))
    return "llama3 scaling with bounds of its own, which are not found again";
  try {
    gguf_metadata(c, nullptr, {});
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

// Whether a tensor of the folder is none of the model's weights: scales, rotary tables, copies of
// the embedding and the head, layers beyond the config's.
inline bool beside_the_weights(const std::string& name, const ModelConfig& c) {
  return name.ends_with("_scale_inv") || name.ends_with("rotary_emb.inv_freq") ||
         name.ends_with("shared_head.head.weight") ||
         (name.ends_with(".embed_tokens.weight") && name != "model.embed_tokens.weight") ||
         (name == "lm_head.weight" && c.tie_word_embeddings) ||
         layer_of_tensor(name) >= c.num_hidden_layers + c.num_nextn_predict_layers;
}

// Without what no file holds: how the model is trained and stored, and ids, which go with the
// tokenizer.
inline ModelConfig without_training(ModelConfig c) {
  c.initializer_range = 0;
  c.torch_dtype = "bfloat16";
  c.fp8 = {};
  c.aux_loss_alpha = 0;
  c.seq_aux = true;
  c.bos_token_id = c.pad_token_id = -1;
  c.eos_token_ids = {};
  return c;
}

// What comes back of a config that went through a file with its MTP modules: another that computes
// the same.
inline ModelConfig as_from_gguf(ModelConfig c) {
  c = without_training(std::move(c));
  RopeConfig& r = c.rope;
  for (double* x : {&r.theta, &r.factor, &r.beta_fast, &r.beta_slow, &r.mscale, &r.mscale_all_dim,
                    &r.attention_factor, &c.rms_norm_eps, &c.routed_scaling_factor})
    *x = std::strtod(fmt::format("{}", static_cast<float>(*x)).c_str(), nullptr);
  if (r.scaling == RopeScaling::kLinear && r.factor == 1) r.scaling = RopeScaling::kNone;
  if (!c.is_mla()) return c;
  int64_t blocks = c.num_hidden_layers + c.num_nextn_predict_layers;
  bool experts = false;
  for (int64_t i = 0; i < blocks; ++i) experts |= c.is_moe_layer(i);
  bool biased = experts && c.has_router_bias(),
       sigmoid = c.n_routed_experts > 0 && c.scoring_func == ScoringFunc::kSigmoid;
  bool v3 = sigmoid || biased || c.num_nextn_predict_layers > 0;
  c.architecture = v3 ? Architecture::kDeepseekV3 : Architecture::kDeepseekV2;
  if (c.num_nextn_predict_layers == 0) c.mtp_hidden_after_norm = true;
  c.first_k_dense_replace =
      c.n_routed_experts > 0 ? std::min(c.first_k_dense_replace, blocks) : blocks;
  if (c.n_routed_experts == 0) {
    c.moe_layer_freq = 1;
    return c;
  }
  c.routed_scaling_factor = c.expert_scale();
  if (c.topk_method == TopkMethod::kGreedy) c.n_group = c.topk_group = 1;
  c.topk_method = biased          ? TopkMethod::kNoauxTc
                  : c.n_group > 1 ? TopkMethod::kGroupLimitedGreedy
                                  : TopkMethod::kGreedy;
  return c;
}

}  // namespace wels
