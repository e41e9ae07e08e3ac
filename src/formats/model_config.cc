#include "formats/model_config.h"

#include <fmt/format.h>

#include <cmath>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"

namespace wels {
namespace {

// Collects what all checks need: where the config came from.
struct Checker {
  const std::string& where;

  [[noreturn]] void fail(const std::string& what, const std::string& hint = "") const {
    throw Error(where, what, hint);
  }
  void range(const char* name, int64_t value, int64_t low, int64_t high) const {
    if (value < low || value > high) {
      fail(fmt::format("{} is {}", name, value),
           fmt::format("it must be between {} and {}", low, high));
    }
  }
  void positive(const char* name, double value) const {
    if (!std::isfinite(value) || value <= 0)
      fail(fmt::format("{} is {}", name, value), "it must be a number above 0");
  }
  // "a 12 does not divide b 100; use 10 or 20": the divisors of b on both sides of a.
  void divides(const char* a_name, int64_t a, const char* b_name, int64_t b) const {
    if (b % a == 0) return;
    int64_t below = a, above = a;
    while (b % below != 0) --below;
    while (above < b && b % above != 0) ++above;
    fail(fmt::format("{} {} does not divide {} {}", a_name, a, b_name, b),
         below == above || above > b ? fmt::format("use {}", below)
                                     : fmt::format("use {} or {}", below, above));
  }
  void even(const char* name, int64_t value) const {
    if (value % 2 != 0) {
      fail(fmt::format("{} {} is odd, but RoPE rotates pairs", name, value),
           fmt::format("use {} or {}", value - 1 > 0 ? value - 1 : 2, value + 1));
    }
  }
};

constexpr int64_t kMaxDim = 1 << 20;

void check_attention(const ModelConfig& c, const Checker& ck) {
  ck.range("num_attention_heads", c.num_attention_heads, 1, 65536);
  ck.range("num_key_value_heads", c.num_key_value_heads, 1, 65536);
  if (c.is_mla()) {
    ck.range("q_lora_rank", c.q_lora_rank, 0, kMaxDim);
    ck.range("kv_lora_rank", c.kv_lora_rank, 1, kMaxDim);
    ck.range("qk_nope_head_dim", c.qk_nope_head_dim, 1, 65536);
    ck.range("qk_rope_head_dim", c.qk_rope_head_dim, 2, 65536);
    ck.range("v_head_dim", c.v_head_dim, 1, 65536);
    ck.even("qk_rope_head_dim", c.qk_rope_head_dim);
    if (c.num_key_value_heads != c.num_attention_heads) {
      ck.fail(fmt::format("num_key_value_heads {} differs from num_attention_heads {}; with latent "
                          "attention every query "
                          "head has its own keys",
                          c.num_key_value_heads, c.num_attention_heads),
              fmt::format("set num_key_value_heads to {}", c.num_attention_heads));
    }
    if (c.attention_bias)
      ck.fail("attention_bias is true", "latent attention with biases is not supported");
  } else {
    if (c.head_dim == 0)
      ck.divides("num_attention_heads", c.num_attention_heads, "hidden_size", c.hidden_size);
    ck.range("head_dim", c.head_dim, 2, 65536);
    ck.even("head_dim", c.head_dim);
    ck.divides("num_key_value_heads", c.num_key_value_heads, "num_attention_heads",
               c.num_attention_heads);
    if (c.architecture == Architecture::kQwen2 && !c.attention_bias) {
      ck.fail("attention_bias is false, but Qwen2 has a bias on q, k and v", "set it to true");
    }
    if (c.architecture == Architecture::kLlama && c.attention_bias) {
      ck.fail("attention_bias is true", "Llama's attention with biases is not supported");
    }
  }
}

void check_experts(const ModelConfig& c, const Checker& ck) {
  ck.range("n_routed_experts", c.n_routed_experts, 0, 65536);
  ck.range("first_k_dense_replace", c.first_k_dense_replace, 0, 65536);
  ck.range("moe_layer_freq", c.moe_layer_freq, 1, 65536);
  ck.range("n_shared_experts", c.n_shared_experts, 0, 4096);
  if (c.n_routed_experts == 0) return;
  if (!c.is_mla()) {
    ck.fail(fmt::format("n_routed_experts {} with architecture {}", c.n_routed_experts,
                        architecture_name(c.architecture)),
            "experts need DeepseekV2ForCausalLM or DeepseekV3ForCausalLM");
  }
  ck.range("moe_intermediate_size", c.moe_intermediate_size, 1, kMaxDim);
  ck.range("num_experts_per_tok", c.num_experts_per_tok, 1, c.n_routed_experts);
  ck.positive("routed_scaling_factor", c.routed_scaling_factor);
  if (c.topk_method == TopkMethod::kGreedy) return;
  ck.range("n_group", c.n_group, 1, c.n_routed_experts);
  ck.divides("n_group", c.n_group, "n_routed_experts", c.n_routed_experts);
  ck.range("topk_group", c.topk_group, 1, c.n_group);
  int64_t per_group = c.n_routed_experts / c.n_group;
  if (c.topk_method == TopkMethod::kNoauxTc && c.n_group > 1 && per_group < 2) {
    ck.fail(
        fmt::format(
            "n_group {} leaves {} expert per group, but a group's score is the sum of its two best",
            c.n_group, per_group),
        fmt::format("use at most {} groups", c.n_routed_experts / 2));
  }
  int64_t reachable = per_group * c.topk_group;
  if (c.num_experts_per_tok > reachable) {
    ck.fail(
        fmt::format("num_experts_per_tok {} exceeds the {} experts of topk_group {} groups of {}",
                    c.num_experts_per_tok, reachable, c.topk_group, per_group),
        fmt::format("use at most {} experts, or topk_group {}", reachable,
                    (c.num_experts_per_tok + per_group - 1) / per_group));
  }
}

void check_rope(const ModelConfig& c, const Checker& ck) {
  const RopeConfig& r = c.rope;
  ck.positive("rope_theta", r.theta);
  ck.range("max_position_embeddings", c.max_position_embeddings, 1, int64_t{1} << 40);
  if (r.scaling == RopeScaling::kNone) return;
  if (!std::isfinite(r.factor) || r.factor < 1) {
    ck.fail(fmt::format("rope_scaling.factor is {}", r.factor), "it must be at least 1");
  }
  if (r.scaling == RopeScaling::kLinear) return;
  ck.range("rope_scaling.original_max_position_embeddings", r.original_max_position_embeddings, 1,
           int64_t{1} << 40);
  if (r.scaling == RopeScaling::kYarn) {
    ck.positive("rope_scaling.beta_fast", r.beta_fast);
    ck.positive("rope_scaling.beta_slow", r.beta_slow);
    if (r.beta_fast < r.beta_slow) {
      ck.fail(
          fmt::format("rope_scaling.beta_fast {} is below beta_slow {}", r.beta_fast, r.beta_slow),
          "DeepSeek uses 32 and 1");
    }
    for (auto [name, v] : {std::pair{"mscale", r.mscale},
                           {"mscale_all_dim", r.mscale_all_dim},
                           {"attention_factor", r.attention_factor}}) {
      if (!std::isfinite(v) || v < 0)
        ck.fail(fmt::format("rope_scaling.{} is {}", name, v), "it must be 0 or more");
    }
    if (c.is_mla() && r.attention_factor != 0) {
      ck.fail(fmt::format("rope_scaling.attention_factor is {}", r.attention_factor),
              "DeepSeek's models have mscale and mscale_all_dim instead");
    }
  } else {
    ck.positive("rope_scaling.low_freq_factor", r.low_freq_factor);
    ck.positive("rope_scaling.high_freq_factor", r.high_freq_factor);
    if (r.high_freq_factor <= r.low_freq_factor) {
      ck.fail(fmt::format("rope_scaling.high_freq_factor {} is not above low_freq_factor {}",
                          r.high_freq_factor, r.low_freq_factor),
              "Llama 3 uses 4 and 1");
    }
  }
}

void check_tokens(const ModelConfig& c, const Checker& ck) {
  auto in_vocab = [&](const char* name, int64_t id) {
    if (id >= c.vocab_size || id < -1) {
      ck.fail(fmt::format("{} {} is outside the vocabulary of {}", name, id, c.vocab_size),
              fmt::format("use 0 to {}", c.vocab_size - 1));
    }
  };
  in_vocab("bos_token_id", c.bos_token_id);
  in_vocab("pad_token_id", c.pad_token_id);
  for (int64_t id : c.eos_token_ids) {
    in_vocab("eos_token_id", id);
    if (id < 0) ck.fail("eos_token_id is negative", "leave it out if there is none");
  }
}

}  // namespace

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

const char* architecture_name(Architecture a) {
  switch (a) {
    case Architecture::kDeepseekV2:
      return "DeepseekV2ForCausalLM";
    case Architecture::kDeepseekV3:
      return "DeepseekV3ForCausalLM";
    case Architecture::kQwen2:
      return "Qwen2ForCausalLM";
    case Architecture::kLlama:
      return "LlamaForCausalLM";
  }
  CHECK(false);
  return "";
}

void drop_unknown_tokens(ModelConfig& c, const std::string& where) {
  auto known = [&](const char* name, int64_t id) {
    if (id >= 0 && id < c.vocab_size) return true;
    if (id != -1)
      log_info("{}: {} {} is outside the vocabulary of {}: left out", where, name, id,
               c.vocab_size);
    return false;
  };
  if (!known("bos_token_id", c.bos_token_id)) c.bos_token_id = -1;
  if (!known("pad_token_id", c.pad_token_id)) c.pad_token_id = -1;
  std::erase_if(c.eos_token_ids, [&](int64_t id) { return !known("eos_token_id", id); });
}

void ModelConfig::validate(const std::string& where) const {
  Checker ck{where};
  bool deepseek =
      architecture == Architecture::kDeepseekV2 || architecture == Architecture::kDeepseekV3;
  if (deepseek != is_mla()) {
    ck.fail(fmt::format("{} does not have {} attention", architecture_name(architecture),
                        is_mla() ? "latent" : "grouped-query"),
            "DeepSeek models have latent attention, Qwen2 and Llama grouped-query attention");
  }
  ck.range("vocab_size", vocab_size, 2, int64_t{1} << 26);
  ck.range("hidden_size", hidden_size, 1, kMaxDim);
  ck.range("num_hidden_layers", num_hidden_layers, 1, 4096);
  ck.range("intermediate_size", intermediate_size, 1, kMaxDim);
  check_attention(*this, ck);
  check_experts(*this, ck);
  check_rope(*this, ck);
  check_tokens(*this, ck);
  ck.range("num_nextn_predict_layers", num_nextn_predict_layers, 0, 64);
  if (num_nextn_predict_layers > 0 && architecture != Architecture::kDeepseekV3) {
    ck.fail(fmt::format("num_nextn_predict_layers {} with architecture {}",
                        num_nextn_predict_layers, architecture_name(architecture)),
            "multi-token prediction needs DeepseekV3ForCausalLM");
  }
  ck.positive("rms_norm_eps", rms_norm_eps);
  if (!std::isfinite(initializer_range) || initializer_range < 0) {
    ck.fail(fmt::format("initializer_range is {}", initializer_range), "V3 uses 0.006");
  }
  if (!std::isfinite(aux_loss_alpha) || aux_loss_alpha < 0) {
    ck.fail(fmt::format("aux_loss_alpha is {}", aux_loss_alpha), "it must be 0 or more");
  }
  if (torch_dtype != "float32" && torch_dtype != "bfloat16" && torch_dtype != "float16") {
    ck.fail(fmt::format("torch_dtype \"{}\" is not supported", torch_dtype),
            "use float32, bfloat16 or float16");
  }
  if (fp8.block_rows != 0 || fp8.block_cols != 0) {
    ck.range("quantization_config.weight_block_size[0]", fp8.block_rows, 1, 65536);
    ck.range("quantization_config.weight_block_size[1]", fp8.block_cols, 1, 65536);
  }
}

}  // namespace wels
