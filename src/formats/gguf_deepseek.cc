#include "formats/gguf_deepseek.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "tensor/weight.h"

namespace wels {
namespace {

using Transform = GgufTransform;

[[noreturn]] void cannot_express(const std::string& what, const std::string& hint) {
  throw Error("GGUF export", what, hint);
}

// Collects the plan; `hf` and `gguf` are the prefixes of the current layer.
struct Planner {
  GgufKvB kv_b;
  std::vector<GgufTensorPlan> plan;
  std::string hf, gguf;

  void begin_layer(int64_t i) {
    hf = fmt::format("model.layers.{}.", i);
    gguf = fmt::format("blk.{}.", i);
  }
  void add(const std::string& to, std::vector<int64_t> shape, const std::string& from,
           bool full_precision = false) {
    bool f32 = full_precision || shape.size() == 1;
    plan.push_back({gguf + to, std::move(shape), Transform::kCopy, hf + from, 0, f32});
  }
  void per_head(const std::string& to, std::vector<int64_t> shape, const std::string& from,
                Transform t, int64_t heads) {
    plan.push_back({gguf + to, std::move(shape), t, hf + from, heads, false});
  }
};

void plan_attention(Planner& p, const ModelConfig& c) {
  int64_t d = c.hidden_size, h = c.num_attention_heads;
  p.add("attn_norm.weight", {d}, "input_layernorm.weight");
  if (!c.is_mla()) {
    bool pairs = c.architecture == Architecture::kLlama;
    int64_t q = h * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
    Transform t = pairs ? Transform::kPairRows : Transform::kCopy;
    p.per_head("attn_q.weight", {q, d}, "self_attn.q_proj.weight", t, h);
    p.per_head("attn_k.weight", {kv, d}, "self_attn.k_proj.weight", t, c.num_key_value_heads);
    p.add("attn_v.weight", {kv, d}, "self_attn.v_proj.weight");
    if (c.attention_bias) {
      p.add("attn_q.bias", {q}, "self_attn.q_proj.bias");
      p.add("attn_k.bias", {kv}, "self_attn.k_proj.bias");
      p.add("attn_v.bias", {kv}, "self_attn.v_proj.bias");
    }
    p.add("attn_output.weight", {d, q}, "self_attn.o_proj.weight");
    return;
  }
  int64_t r = c.kv_lora_rank, rq = c.q_lora_rank, dn = c.qk_nope_head_dim, dr = c.qk_rope_head_dim,
          dv = c.v_head_dim;
  if (rq > 0) {
    p.add("attn_q_a.weight", {rq, d}, "self_attn.q_a_proj.weight");
    p.add("attn_q_a_norm.weight", {rq}, "self_attn.q_a_layernorm.weight");
    p.add("attn_q_b.weight", {h * (dn + dr), rq}, "self_attn.q_b_proj.weight");
  } else {
    p.add("attn_q.weight", {h * (dn + dr), d}, "self_attn.q_proj.weight");
  }
  p.add("attn_kv_a_mqa.weight", {r + dr, d}, "self_attn.kv_a_proj_with_mqa.weight");
  p.add("attn_kv_a_norm.weight", {r}, "self_attn.kv_a_layernorm.weight");
  const char* kv_b = "self_attn.kv_b_proj.weight";
  if (p.kv_b == GgufKvB::kWhole) {
    p.add("attn_kv_b.weight", {h * (dn + dv), r}, kv_b);
  } else {
    p.per_head("attn_k_b.weight", {h, r, dn}, kv_b, Transform::kKeysOfKvB, h);
    p.per_head("attn_v_b.weight", {h, dv, r}, kv_b, Transform::kValuesOfKvB, h);
  }
  p.add("attn_output.weight", {d, h * dv}, "self_attn.o_proj.weight");
}

void plan_ffn(Planner& p, const ModelConfig& c, int64_t layer) {
  int64_t d = c.hidden_size;
  p.add("ffn_norm.weight", {d}, "post_attention_layernorm.weight");
  if (!c.is_moe_layer(layer)) {
    int64_t f = c.intermediate_size;
    p.add("ffn_gate.weight", {f, d}, "mlp.gate_proj.weight");
    p.add("ffn_up.weight", {f, d}, "mlp.up_proj.weight");
    p.add("ffn_down.weight", {d, f}, "mlp.down_proj.weight");
    return;
  }
  int64_t e = c.n_routed_experts, f = c.moe_intermediate_size, fs = f * c.n_shared_experts;
  p.add("ffn_gate_inp.weight", {e, d}, "mlp.gate.weight", true);
  if (c.has_router_bias()) p.add("exp_probs_b.bias", {e}, "mlp.gate.e_score_correction_bias");
  for (const char* part : {"gate", "up", "down"}) {
    bool down = part == std::string_view("down");
    GgufTensorPlan t;
    t.name = fmt::format("{}ffn_{}_exps.weight", p.gguf, part);
    t.shape = down ? std::vector<int64_t>{e, d, f} : std::vector<int64_t>{e, f, d};
    t.transform = Transform::kStack;
    t.source = fmt::format("{}mlp.experts.{{}}.{}_proj.weight", p.hf, part);
    p.plan.push_back(std::move(t));
    if (fs == 0) continue;
    p.add(fmt::format("ffn_{}_shexp.weight", part),
          down ? std::vector<int64_t>{d, fs} : std::vector<int64_t>{fs, d},
          fmt::format("mlp.shared_experts.{}_proj.weight", part));
  }
}

void check_expressible(const ModelConfig& c) {
  if (c.is_mla() && c.n_routed_experts > 0) {
    if (c.moe_layer_freq != 1) {
      cannot_express(
          fmt::format(
              "moe_layer_freq {}: deepseek2 has experts in every block after the dense ones",
              c.moe_layer_freq),
          "only models with moe_layer_freq 1 can be exported");
    }
    if (c.n_shared_experts == 0) {
      cannot_express("n_shared_experts is 0, but deepseek2 always has shared experts",
                     "train with at least one shared expert");
    }
  }
  if (c.is_mla() && c.rope.scaling == RopeScaling::kYarn &&
      c.rope.mscale != c.rope.mscale_all_dim) {
    cannot_express(fmt::format("rope_scaling.mscale {} differs from mscale_all_dim {}",
                               c.rope.mscale, c.rope.mscale_all_dim),
                   "deepseek2 has one value for both");
  }
  if (c.is_mla() && c.rope.scaling == RopeScaling::kLlama3)
    cannot_express("llama3 RoPE scaling in a DeepSeek model", "use yarn");
  bool lite = c.num_hidden_layers == 26 || c.num_hidden_layers == 27;
  if (c.is_mla() && lite && c.q_lora_rank > 0) {
    cannot_express(
        fmt::format(
            "q_lora_rank {} with {} layers, which llama.cpp takes for V2-Lite, a model without",
            c.q_lora_rank, c.num_hidden_layers),
        "use another number of layers, or q_lora_rank 0");
  }
}

const char* gguf_architecture(const ModelConfig& c) {
  if (c.is_mla()) return "deepseek2";
  return c.architecture == Architecture::kQwen2 ? "qwen2" : "llama";
}

// Metadata with keys under the architecture's name.
struct MetadataBuilder {
  GgufMetadata out;
  std::string arch;
  void add(const std::string& key, GgufValue v) { out.emplace_back(key, std::move(v)); }
  void u32(const std::string& key, int64_t v) {
    if (v < 0 || v > int64_t{UINT32_MAX})
      cannot_express(fmt::format("{} is {}", key, v), "GGUF has 32 bits for it");
    add(arch + "." + key, gguf_u32(static_cast<uint32_t>(v)));
  }
  void f32(const std::string& key, double v) {
    add(arch + "." + key, gguf_f32(static_cast<float>(v)));
  }
};

void rope_metadata(MetadataBuilder& b, const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  b.f32("rope.freq_base", r.theta);
  bool linear = r.scaling == RopeScaling::kLinear;
  if (!linear && r.scaling != RopeScaling::kYarn) return;
  b.add(b.arch + ".rope.scaling.type", gguf_string(linear ? "linear" : "yarn"));
  b.f32("rope.scaling.factor", r.factor);
  if (linear) return;
  b.u32("rope.scaling.original_context_length", r.original_max_position_embeddings);
  if (r.attention_factor > 0) b.f32("rope.scaling.yarn_attn_factor", r.attention_factor);
  b.f32("rope.scaling.yarn_beta_fast", r.beta_fast);
  b.f32("rope.scaling.yarn_beta_slow", r.beta_slow);
  if (c.is_mla()) b.f32("rope.scaling.yarn_log_multiplier", 0.1 * r.mscale_all_dim);
}

void mla_metadata(MetadataBuilder& b, const ModelConfig& c, bool include_mtp) {
  bool moe = c.n_routed_experts > 0;
  int64_t blocks = c.num_hidden_layers + (include_mtp ? c.num_nextn_predict_layers : 0);
  b.u32("leading_dense_block_count", moe ? std::min(c.first_k_dense_replace, blocks) : blocks);
  b.u32("vocab_size", c.vocab_size);
  // Where the number of layers does not tell llama.cpp that there is no query compression, it wants
  // the key.
  if (c.q_lora_rank > 0 || (c.num_hidden_layers != 26 && c.num_hidden_layers != 27))
    b.u32("attention.q_lora_rank", c.q_lora_rank);
  b.u32("attention.kv_lora_rank", c.kv_lora_rank);
  b.u32("attention.key_length", c.kv_lora_rank + c.qk_rope_head_dim);
  b.u32("attention.value_length", c.kv_lora_rank);
  b.u32("attention.key_length_mla", c.qk_nope_head_dim + c.qk_rope_head_dim);
  b.u32("attention.value_length_mla", c.v_head_dim);
  b.u32("expert_feed_forward_length", moe ? c.moe_intermediate_size : c.intermediate_size);
  b.u32("expert_shared_count", c.n_shared_experts);
  if (moe) {
    b.u32("expert_count", c.n_routed_experts);
    b.u32("expert_used_count", c.num_experts_per_tok);
    bool grouped = c.topk_method != TopkMethod::kGreedy;
    b.u32("expert_group_count", grouped ? c.n_group : 1);
    b.u32("expert_group_used_count", grouped ? c.topk_group : 1);
    b.f32("expert_weights_scale", c.expert_scale());  // llama.cpp normalises and scales
    if (c.norm_topk_prob) b.add(b.arch + ".expert_weights_norm", gguf_bool(true));
    b.u32("expert_gating_func", c.scoring_func == ScoringFunc::kSigmoid ? 2 : 1);
  }
  b.u32("rope.dimension_count", c.qk_rope_head_dim);
  if (include_mtp && c.num_nextn_predict_layers > 0) {
    b.u32("nextn_predict_layers", c.num_nextn_predict_layers);
    if (!c.mtp_hidden_after_norm) b.add(kGgufMtpAfterNorm, gguf_bool(false));
  }
}

void tokenizer_metadata(MetadataBuilder& b, const ModelConfig& c, const GgufTokenizer* t) {
  if (!t) {
    b.add("tokenizer.ggml.model", gguf_string("none"));
    return;
  }
  if (t->tokens.size() != t->types.size() ||
      static_cast<int64_t>(t->tokens.size()) > c.vocab_size) {
    throw Error("GGUF export",
                fmt::format("the tokenizer has {} tokens, the model's vocabulary {}",
                            t->tokens.size(), c.vocab_size),
                "use the tokenizer that the model was trained with");
  }
  std::vector<std::string> tokens = t->tokens;
  std::vector<int32_t> types = t->types;
  for (int64_t i = static_cast<int64_t>(tokens.size()); i < c.vocab_size; ++i) {
    tokens.push_back(fmt::format("[PAD{}]", i));
    types.push_back(5);
  }
  b.add("tokenizer.ggml.model", gguf_string("gpt2"));
  b.add("tokenizer.ggml.pre", gguf_string(t->pre));
  b.add("tokenizer.ggml.tokens", gguf_strings(std::move(tokens)));
  b.add("tokenizer.ggml.token_type", gguf_i32s(types));
  b.add("tokenizer.ggml.merges", gguf_strings(t->merges));
  auto id = [&](const char* key, std::optional<int32_t> v) {
    if (v && *v >= 0)
      b.add(fmt::format("tokenizer.ggml.{}_token_id", key), gguf_u32(static_cast<uint32_t>(*v)));
  };
  id("bos", t->bos);
  id("eos", t->eos);
  id("padding", t->pad);
  if (t->add_bos) b.add("tokenizer.ggml.add_bos_token", gguf_bool(*t->add_bos));
  b.add("tokenizer.ggml.add_eos_token", gguf_bool(false));
  if (!t->chat_template.empty()) b.add("tokenizer.chat_template", gguf_string(t->chat_template));
}

}  // namespace

std::vector<float> gguf_rope_factors(const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  double original = static_cast<double>(r.original_max_position_embeddings);
  std::vector<float> out;
  for (int64_t i = 0; i < c.head_dim / 2; ++i) {
    double frequency =
        std::pow(r.theta, -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
    double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < original / r.high_freq_factor) {
      out.push_back(1);
    } else if (wavelength > original / r.low_freq_factor) {
      out.push_back(static_cast<float>(r.factor));
    } else {
      double smooth =
          (original / wavelength - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor);
      out.push_back(static_cast<float>(1 / ((1 - smooth) / r.factor + smooth)));
    }
  }
  return out;
}

std::string gguf_source_name(const GgufTensorPlan& t, int64_t i) {
  return tensor_name(t.source, i);
}

std::vector<GgufTensorPlan> gguf_tensor_plan(const ModelConfig& c, bool include_mtp, GgufKvB kv_b) {
  Planner p{kv_b, {}, "", ""};
  p.add("token_embd.weight", {c.vocab_size, c.hidden_size}, "model.embed_tokens.weight");
  p.add("output_norm.weight", {c.hidden_size}, "model.norm.weight");
  if (!c.tie_word_embeddings)
    p.add("output.weight", {c.vocab_size, c.hidden_size}, "lm_head.weight");
  if (c.rope.scaling == RopeScaling::kLlama3) {
    p.plan.push_back({"rope_freqs.weight", {c.head_dim / 2}, Transform::kRopeFactors, "", 0, true});
  }
  for (int64_t i = 0; i < c.num_hidden_layers + (include_mtp ? c.num_nextn_predict_layers : 0);
       ++i) {
    p.begin_layer(i);
    plan_attention(p, c);
    plan_ffn(p, c, i);
    if (i < c.num_hidden_layers) continue;
    p.add("nextn.eh_proj.weight", {c.hidden_size, 2 * c.hidden_size}, "eh_proj.weight");
    p.add("nextn.enorm.weight", {c.hidden_size}, "enorm.weight");
    p.add("nextn.hnorm.weight", {c.hidden_size}, "hnorm.weight");
    p.add("nextn.shared_head_norm.weight", {c.hidden_size}, "shared_head.norm.weight");
  }
  return p.plan;
}

GgufMetadata gguf_metadata(const ModelConfig& c, const GgufTokenizer* tokenizer,
                           const GgufMetadataOptions& options) {
  check_expressible(c);
  MetadataBuilder b{{}, gguf_architecture(c)};
  b.add("general.architecture", gguf_string(b.arch));
  b.add("general.type", gguf_string("model"));
  b.add("general.name", gguf_string(options.name));
  b.u32("block_count",
        c.num_hidden_layers + (options.include_mtp ? c.num_nextn_predict_layers : 0));
  b.u32("context_length", c.max_position_embeddings);
  b.u32("embedding_length", c.hidden_size);
  b.u32("feed_forward_length", c.intermediate_size);
  b.u32("attention.head_count", c.num_attention_heads);
  b.u32("attention.head_count_kv",
        c.is_mla() ? 1 : c.num_key_value_heads);  // absorbed MLA is attention with one key head
  rope_metadata(b, c);
  b.f32("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  if (c.is_mla()) {
    mla_metadata(b, c, options.include_mtp);
  } else {
    b.u32("attention.key_length", c.head_dim);
    b.u32("attention.value_length", c.head_dim);
    b.u32("vocab_size", c.vocab_size);
    b.u32("rope.dimension_count", c.head_dim);
  }
  b.add("general.file_type", gguf_u32(options.file_type));
  b.add("general.quantization_version", gguf_u32(2));
  tokenizer_metadata(b, c, tokenizer);
  return std::move(b.out);
}

}  // namespace wels
