#include "formats/gguf_checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numbers>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "formats/gguf_deepseek.h"
#include "formats/json.h"
#include "tensor/pool.h"
#include "tensor/quant.h"

namespace wels {
namespace {

// Metadata keys under the file's architecture.
struct MetadataReader {
  const GgufContent& file;
  std::string arch;
  std::string key(const char* k) const { return arch + "." + k; }
  bool has(const char* k) const { return file.has(key(k)); }
  int64_t integer(const char* k) const { return file.integer(key(k)); }
  int64_t integer(const char* k, int64_t fallback) const { return has(k) ? integer(k) : fallback; }
  // float32 values as the decimal numbers they were written from: 1e-6, not 9.99999997e-07.
  double number(const char* k, double fallback) const {
    if (!has(k)) return fallback;
    double v = file.number(key(k));
    return std::strtod(fmt::format("{}", static_cast<float>(v)).c_str(), nullptr);
  }
};

// Llama 3's scaling, of which the file holds only what each frequency is divided by: the factor and
// the original context that give these divisors, with Llama 3's bounds of 1 and 4 turns. Throws
// Error where none do.
void find_llama3_scaling(const MetadataReader& m, ModelConfig& c) {
  const TensorEntry& t = m.file.tensor("rope_freqs.weight");
  if (c.is_mla() || c.head_dim < 2 || t.dtype != DType::kF32 ||
      t.shape != std::vector<int64_t>{c.head_dim / 2}) {
    throw Error(m.file.where,
                fmt::format("tensor rope_freqs.weight has shape [{}] of {}; Llama's heads of {} "
                            "take [{}] of f32",
                            fmt::join(t.shape, ", "), name(t.dtype), c.head_dim, c.head_dim / 2),
                "the file does not fit its architecture");
  }
  std::vector<float> divisor(static_cast<size_t>(c.head_dim / 2));
  std::memcpy(divisor.data(), t.data.data(), t.data.size());
  RopeConfig& r = c.rope;
  r.scaling = RopeScaling::kLlama3;
  r.factor = static_cast<double>(divisor.back());
  // Between the bounds 1 / divisor runs from 1 / factor to 1 as turns = original / wavelength run
  // from 1 to 4; the middle tells best. With nothing between them any context will do that puts the
  // bounds around the step.
  double nearest = 0.5, original = 0, unscaled = 0, scaled = 0;
  for (size_t i = 0; i < divisor.size(); ++i) {
    double wavelength =
        2 * std::numbers::pi *
        std::pow(r.theta, 2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
    double d = static_cast<double>(divisor[i]);
    double smooth = (1 / d - 1 / r.factor) / (1 - 1 / r.factor);
    if (d == 1) unscaled = wavelength;
    if (d == r.factor && scaled == 0) scaled = wavelength;
    if (std::fabs(smooth - 0.5) < nearest) {
      nearest = std::fabs(smooth - 0.5);
      original = (1 + 3 * smooth) * wavelength;
    }
  }
  if (original == 0) original = std::sqrt(4 * unscaled * scaled);
  r.original_max_position_embeddings =
      original >= 1 && original < 0x1p40 ? std::llround(original) : 1;
  std::vector<float> want = gguf_rope_factors(c);
  for (size_t i = 0; i < divisor.size(); ++i) {
    if (std::fabs(divisor[i] - want[i]) <= 1e-5f * want[i]) continue;
    throw Error(m.file.where,
                fmt::format("rope_freqs.weight divides frequency {} by {}; llama3 scaling by {} "
                            "over {} tokens divides it by {}",
                            i, divisor[i], r.factor, r.original_max_position_embeddings, want[i]),
                "use the Hugging Face checkpoint");
  }
}

RopeConfig read_rope(const MetadataReader& m, const ModelConfig& c) {
  RopeConfig r;
  r.theta = m.number("rope.freq_base", 10000.0);
  // Without a type a factor is linear; rope.scale_linear is its old name.
  std::string type =
      m.has("rope.scaling.type") ? m.file.text(m.key("rope.scaling.type")) : "linear";
  double factor = m.number("rope.scaling.factor", m.number("rope.scale_linear", 0.0));
  if (type == "none" || (type == "linear" && (factor == 0 || factor == 1))) return r;
  if (type != "linear" && type != "yarn")
    throw Error(m.file.where,
                fmt::format("rope.scaling.type \"{}\" is not supported", printable(type)),
                "supported: none, linear, yarn");
  r.scaling = type == "yarn" ? RopeScaling::kYarn : RopeScaling::kLinear;
  r.factor = factor == 0 ? 1.0 : factor;
  if (type == "linear") return r;
  r.original_max_position_embeddings =
      m.integer("rope.scaling.original_context_length", c.max_position_embeddings);
  r.beta_fast = m.number("rope.scaling.yarn_beta_fast", 32.0);
  r.beta_slow = m.number("rope.scaling.yarn_beta_slow", 1.0);
  r.attention_factor = m.number("rope.scaling.yarn_attn_factor", 0.0);
  if (c.is_mla()) {
    // One float32 division away from what was written: rounded to the seven digits that float32
    // holds.
    double all = m.number("rope.scaling.yarn_log_multiplier", 0.0) / 0.1;
    r.mscale_all_dim = std::strtod(fmt::format("{:.7g}", all).c_str(), nullptr);
    r.mscale = r.mscale_all_dim;
    if (r.attention_factor == 1) r.attention_factor = 0;  // on top of DeepSeek's, says nothing
  }
  return r;
}

// Routing groups as the file states them, else those of the published model with this number of
// experts.
void read_groups(const MetadataReader& m, ModelConfig& c) {
  struct Known {
    const char* model;
    ScoringFunc scoring;
    int64_t experts, chosen, groups, used;
  };
  static constexpr Known kKnown[] = {{"DeepSeek-V3", ScoringFunc::kSigmoid, 256, 8, 8, 4},
                                     {"DeepSeek-V2", ScoringFunc::kSoftmax, 160, 6, 8, 3}};
  c.n_group = m.integer("expert_group_count", 0);
  c.topk_group = m.integer("expert_group_used_count", 1);
  if (c.n_group != 0) return;
  c.n_group = c.topk_group = 1;
  for (const Known& k : kKnown) {
    if (c.scoring_func != k.scoring || c.n_routed_experts != k.experts ||
        c.num_experts_per_tok != k.chosen)
      continue;
    c.n_group = k.groups;
    c.topk_group = k.used;
    log_info("{} has no {}: {} of {} groups as in {}, which has as many experts", m.file.where,
             m.key("expert_group_count"), k.used, k.groups, k.model);
  }
}

// What would change the arithmetic, and is not in it.
void refuse_unknown(const MetadataReader& m, bool deepseek) {
  for (const char* k : {"attention.sliding_window", "attention.temperature_scale", "logit_scale",
                        "embedding_scale", "residual_scale", "attention.scale"}) {
    if (m.has(k) && m.number(k, 0) != 0)
      throw Error(m.file.where, fmt::format("{} {} is not supported", m.key(k), m.number(k, 0)),
                  "models of this kind cannot be run");
  }
  if (!deepseek && m.integer("expert_count", 0) != 0)
    throw Error(m.file.where,
                fmt::format("{} is {}", m.key("expert_count"), m.integer("expert_count")),
                "of models with experts, deepseek2 can be run");
}

void read_deepseek(const MetadataReader& m, ModelConfig& c) {
  constexpr int64_t kUnsaid = 0, kSoftmax = 1, kSigmoid = 2;  // llama.cpp's numbers
  int64_t gating = m.integer("expert_gating_func", kUnsaid);
  if (gating < kUnsaid || gating > kSigmoid)
    throw Error(m.file.where,
                fmt::format("{} {} is not supported", m.key("expert_gating_func"), gating),
                fmt::format("supported: {} (softmax), {} (sigmoid)", kSoftmax, kSigmoid));
  bool sigmoid = gating == kSigmoid;
  c.num_nextn_predict_layers = m.integer("nextn_predict_layers", 0);
  c.num_hidden_layers -= c.num_nextn_predict_layers;
  if (m.file.has(kGgufMtpAfterNorm)) c.mtp_hidden_after_norm = m.file.boolean(kGgufMtpAfterNorm);
  c.num_key_value_heads = c.num_attention_heads;
  c.q_lora_rank = m.integer("attention.q_lora_rank", 0);
  c.kv_lora_rank = m.integer("attention.kv_lora_rank");
  c.qk_rope_head_dim = m.integer("rope.dimension_count");
  // With split kv_b, key_length and value_length are those of the latent head; before, of a head.
  bool split = m.has("attention.key_length_mla");
  if (__builtin_sub_overflow(m.integer(split ? "attention.key_length_mla" : "attention.key_length"),
                             c.qk_rope_head_dim, &c.qk_nope_head_dim))
    c.qk_nope_head_dim = -1;
  c.v_head_dim = m.integer(split ? "attention.value_length_mla" : "attention.value_length");
  c.n_routed_experts = m.integer("expert_count", 0);
  c.first_k_dense_replace = m.integer("leading_dense_block_count", 0);
  bool biased = false;
  for (const TensorEntry& t : m.file.tensors) biased |= t.name.ends_with(".exp_probs_b.bias");
  bool v3 = sigmoid || biased || c.num_nextn_predict_layers > 0;
  c.architecture = v3 ? Architecture::kDeepseekV3 : Architecture::kDeepseekV2;
  if (c.n_routed_experts == 0) return;
  c.n_shared_experts = m.integer("expert_shared_count", 0);
  c.num_experts_per_tok = m.integer("expert_used_count");
  c.moe_intermediate_size = m.integer("expert_feed_forward_length");
  c.norm_topk_prob = m.has("expert_weights_norm") && m.file.boolean(m.key("expert_weights_norm"));
  c.routed_scaling_factor = m.number("expert_weights_scale", 1.0);
  c.scoring_func = sigmoid ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax;
  read_groups(m, c);
  c.topk_method = biased          ? TopkMethod::kNoauxTc
                  : c.n_group > 1 ? TopkMethod::kGroupLimitedGreedy
                                  : TopkMethod::kGreedy;
}

int64_t vocabulary(const MetadataReader& m) {
  if (m.has("vocab_size")) return m.integer("vocab_size");
  const TensorEntry& t = m.file.tensor("token_embd.weight");
  return t.shape.empty() ? 0 : t.shape[0];
}

}  // namespace

ModelConfig gguf_model_config(const GgufContent& file) {
  MetadataReader m{file, file.text("general.architecture")};
  ModelConfig c;
  bool deepseek = m.arch == "deepseek2";
  if (!deepseek && m.arch != "qwen2" && m.arch != "llama") {
    throw Error(file.where, fmt::format("architecture \"{}\" is not supported", printable(m.arch)),
                "supported: deepseek2, qwen2, llama");
  }
  refuse_unknown(m, deepseek);
  c.num_hidden_layers = m.integer("block_count");
  c.max_position_embeddings = m.integer("context_length");
  c.hidden_size = m.integer("embedding_length");
  c.intermediate_size = m.integer("feed_forward_length");
  c.num_attention_heads = m.integer("attention.head_count");
  c.vocab_size = vocabulary(m);
  c.rms_norm_eps = m.number("attention.layer_norm_rms_epsilon", 1e-6);
  c.tie_word_embeddings = !file.find_tensor("output.weight");
  if (deepseek) {
    read_deepseek(m, c);
  } else {
    c.architecture = m.arch == "qwen2" ? Architecture::kQwen2 : Architecture::kLlama;
    c.attention = AttentionKind::kGqa;
    c.attention_bias = c.architecture == Architecture::kQwen2;
    c.num_key_value_heads = m.integer("attention.head_count_kv", c.num_attention_heads);
    int64_t width = c.num_attention_heads > 0 ? c.hidden_size / c.num_attention_heads : 0;
    c.head_dim = m.integer("attention.key_length", width);
    if (m.integer("rope.dimension_count", c.head_dim) != c.head_dim)
      throw Error(file.where,
                  fmt::format("{} {} of heads of {}", m.key("rope.dimension_count"),
                              m.integer("rope.dimension_count"), c.head_dim),
                  "only heads that are rotated as a whole can be run");
  }
  c.rope = read_rope(m, c);
  if (file.find_tensor("rope_freqs.weight")) find_llama3_scaling(m, c);
  if (file.has("tokenizer.ggml.bos_token_id"))
    c.bos_token_id = file.integer("tokenizer.ggml.bos_token_id");
  if (file.has("tokenizer.ggml.eos_token_id"))
    c.eos_token_ids = {file.integer("tokenizer.ggml.eos_token_id")};
  if (file.has("tokenizer.ggml.padding_token_id"))
    c.pad_token_id = file.integer("tokenizer.ggml.padding_token_id");
  drop_unknown_tokens(c, file.where);
  c.validate(file.where);
  return c;
}

namespace {

// Tensors that a file may hold beyond the model's weights: MTP's copies of embedding and head, what
// the config was read from, and, beside a whole kv_b, its halves.
bool is_derived(const std::string& name, GgufKvB kv_b) {
  bool half = name.ends_with(".attn_k_b.weight") || name.ends_with(".attn_v_b.weight");
  return (half && kv_b == GgufKvB::kWhole) || name.ends_with(".nextn.embed_tokens.weight") ||
         name.ends_with(".nextn.shared_head_head.weight") || name == "rope_freqs.weight";
}

// Goes through the exporter's plan and takes each of its tensors back.
class WeightCollector {
 public:
  WeightCollector(const GgufContent& file, const ModelConfig& cfg) : file_(file), c_(cfg) {}

  void take(const GgufTensorPlan& plan) {
    const TensorEntry& e = entry(plan);
    switch (plan.transform) {
      case GgufTransform::kCopy:
        add(plan.source, e.dtype, e.shape, e.data);
        break;
      case GgufTransform::kStack:
        take_stack(plan, e);
        break;
      case GgufTransform::kPairRows:
        take_halves(plan, e);
        break;
      case GgufTransform::kKeysOfKvB:
        keys_ = &e;  // the values come next
        break;
      case GgufTransform::kValuesOfKvB:
        join_kv_b(plan, e);
        break;
      case GgufTransform::kRopeFactors:  // in the config
        break;
    }
  }

  GgufWeights finish(GgufKvB kv_b) {
    for (const TensorEntry& t : file_.tensors) {
      if (!used_.contains(t.name) && !is_derived(t.name, kv_b)) {
        throw Error(file_.where,
                    fmt::format("tensor {} has no place in this {} model", printable(t.name),
                                file_.text("general.architecture")),
                    "the file holds more than its metadata say");
      }
    }
    return std::move(out_);
  }

 private:
  const TensorEntry& entry(const GgufTensorPlan& plan) {
    const TensorEntry* e = file_.find_tensor(plan.name);
    if (!e || e->shape != plan.shape) {
      throw Error(file_.where,
                  fmt::format("tensor {} {}; its metadata ask for [{}]", plan.name,
                              e ? fmt::format("has shape [{}]", fmt::join(e->shape, ", "))
                                : std::string("is missing"),
                              fmt::join(plan.shape, ", ")),
                  "the file is not a whole model; fetch or convert it again");
    }
    if (!find_quant_format(e->dtype)) {
      throw Error(
          file_.where,
          fmt::format("tensor {} is {}, which is no type of weights", plan.name, name(e->dtype)),
          "convert the model again");
    }
    if (!e->aligned()) {
      throw Error(file_.where, fmt::format("tensor {} lies at an odd address", plan.name),
                  fmt::format("general.alignment is {}; it must be 8 or more", file_.alignment));
    }
    used_.insert(e->name);
    return *e;
  }

  void add(std::string name, DType dtype, std::vector<int64_t> shape,
           std::span<const uint8_t> data) {
    out_.tensors.push_back({std::move(name), dtype, std::move(shape), data});
  }
  // Memory for a tensor that cannot stay as it is.
  uint8_t* add_copy(const std::string& name, DType dtype, std::vector<int64_t> shape) {
    int64_t bytes = tensor_bytes(dtype, shape).value();
    std::shared_ptr<void> memory(allocate_host(bytes), [bytes](void* p) { free_host(p, bytes); });
    out_.copies.push_back(memory);
    uint8_t* to = static_cast<uint8_t*>(memory.get());
    add(name, dtype, std::move(shape), {to, static_cast<size_t>(bytes)});
    return to;
  }

  void take_stack(const GgufTensorPlan& plan, const TensorEntry& e) {
    size_t bytes = e.data.size() / static_cast<size_t>(plan.shape[0]);
    for (int64_t i = 0; i < plan.shape[0]; ++i) {
      add(gguf_source_name(plan, i), e.dtype, {plan.shape[1], plan.shape[2]},
          e.data.subspan(static_cast<size_t>(i) * bytes, bytes));
    }
  }

  // Row 2j + p of a head becomes row p · half + j.
  void take_halves(const GgufTensorPlan& plan, const TensorEntry& e) {
    int64_t width = plan.shape[0] / plan.heads, half = width / 2;
    size_t bytes = static_cast<size_t>(row_bytes(e.dtype, plan.shape[1]));
    uint8_t* to = add_copy(plan.source, e.dtype, e.shape);
    for (int64_t r = 0; r < plan.shape[0]; ++r) {
      int64_t head = r / width, j = r % width / 2, p = r % 2;
      std::memcpy(to + static_cast<size_t>(head * width + p * half + j) * bytes,
                  e.data.data() + static_cast<size_t>(r) * bytes, bytes);
    }
  }

  // keys [h, r, dn] and values [h, dv, r] to [h · (dn + dv), r].
  void join_kv_b(const GgufTensorPlan& plan, const TensorEntry& values) {
    const TensorEntry& keys = *keys_;
    int64_t dn = c_.qk_nope_head_dim, dv = c_.v_head_dim, r = c_.kv_lora_rank;
    DType type = gguf_joined_type(keys.dtype, values.dtype);
    uint8_t* to = add_copy(plan.source, type, {plan.heads * (dn + dv), r});
    parallel_tasks(plan.heads, [&](int64_t h) {
      std::vector<float> rows(static_cast<size_t>((dn + dv) * r)), column(static_cast<size_t>(dn));
      const Tensor k = keys.view(), v = values.view();
      for (int64_t i = 0; i < r; ++i) {
        find_quant_format(k.dtype)->decode(k.row_raw(h * r + i), column.data(), dn);
        for (int64_t j = 0; j < dn; ++j)
          rows[static_cast<size_t>(j * r + i)] = column[static_cast<size_t>(j)];
      }
      for (int64_t i = 0; i < dv; ++i) {
        find_quant_format(v.dtype)->decode(v.row_raw(h * dv + i), rows.data() + (dn + i) * r, r);
      }
      find_quant_format(type)->encode(rows.data(), nullptr, to + h * (dn + dv) * row_bytes(type, r),
                                      (dn + dv) * r);
    });
  }

  const GgufContent& file_;
  const ModelConfig& c_;
  const TensorEntry* keys_ = nullptr;
  std::set<std::string_view> used_;
  GgufWeights out_;
};

}  // namespace

DType gguf_joined_type(DType keys, DType values) {
  if (is_quantised(keys) && is_quantised(values)) return DType::kF16;
  return keys == values ? keys : DType::kF32;
}

GgufWeights gguf_weights(const GgufContent& file, const ModelConfig& cfg) {
  GgufKvB kv_b = file.find_tensor("blk.0.attn_kv_b.weight") ? GgufKvB::kWhole : GgufKvB::kSplit;
  WeightCollector collector(file, cfg);
  for (const GgufTensorPlan& plan : gguf_tensor_plan(cfg, true, kv_b)) collector.take(plan);
  return collector.finish(kv_b);
}

GgufCheckpoint::GgufCheckpoint(const std::string& path)
    : reader_(path),
      config_(gguf_model_config(reader_.content())),
      weights_(gguf_weights(reader_.content(), config_)) {}

}  // namespace wels
