#include "formats/hf_config.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/json.h"
#include "tensor/fp8.h"

namespace wels {
namespace {

using nlohmann::json;

// A JSON object with typed access; every complaint names the file and the field. A field that is
// null counts as absent: that is how HF writes "not used".
class Fields {
 public:
  Fields(const json& object, std::string where, std::string prefix = "")
      : object_(object), where_(std::move(where)), prefix_(std::move(prefix)) {}

  bool has(const char* key) const {
    auto it = object_.find(key);
    return it != object_.end() && !it->is_null();
  }
  int64_t integer(const char* key) const { return to_integer(required(key), key); }
  int64_t integer(const char* key, int64_t fallback) const {
    return has(key) ? integer(key) : fallback;
  }
  double number(const char* key) const {
    const json& v = required(key);
    if (!v.is_number()) bad(key, v, "a number");
    return v.get<double>();
  }
  double number(const char* key, double fallback) const {
    return has(key) ? number(key) : fallback;
  }
  bool boolean(const char* key, bool fallback) const {
    if (!has(key)) return fallback;
    const json& v = object_.at(key);
    if (!v.is_boolean()) bad(key, v, "true or false");
    return v.get<bool>();
  }
  std::string text(const char* key, const std::string& fallback) const {
    if (!has(key)) return fallback;
    const json& v = object_.at(key);
    if (!v.is_string()) bad(key, v, "a string");
    return v.get<std::string>();
  }
  // An integer or a list of integers.
  std::vector<int64_t> integers(const char* key) const {
    std::vector<int64_t> out;
    if (!has(key)) return out;
    const json& v = object_.at(key);
    if (!v.is_array()) return {to_integer(v, key)};
    for (const json& e : v) out.push_back(to_integer(e, key));
    return out;
  }
  Fields object(const char* key) const {
    const json& v = required(key);
    if (!v.is_object()) bad(key, v, "an object");
    return {v, where_, prefix_ + key + "."};
  }
  const std::string& where() const { return where_; }
  const json& required(const char* key) const {
    if (!has(key))
      throw Error(where_, fmt::format("{}{} is missing", prefix_, key),
                  prefix_.empty() ? "every model of this architecture has it"
                                  : "it says how the model computes");
    return object_.at(key);
  }
  [[noreturn]] void refuse(const std::string& what, const std::string& hint) const {
    throw Error(where_, prefix_ + what, hint);
  }

 private:
  [[noreturn]] void bad(const char* key, const json& v, const char* wanted) const {
    throw Error(where_,
                fmt::format("{}{} is {}", prefix_, key,
                            printable(v.dump(-1, ' ', false, json::error_handler_t::replace))),
                fmt::format("it must be {}", wanted));
  }
  int64_t to_integer(const json& v, const char* key) const {
    if (v.is_number_unsigned() && v.get<uint64_t>() <= uint64_t{INT64_MAX})
      return static_cast<int64_t>(v.get<uint64_t>());
    if (v.is_number_integer() && !v.is_number_unsigned()) return v.get<int64_t>();
    if (v.is_number_float()) {  // 1e6 and 10.0 are integers to JSON's other readers
      double d = v.get<double>();
      if (std::abs(d) < 0x1p53 && d == std::floor(d)) return static_cast<int64_t>(d);
    }
    bad(key, v, "an integer");
  }
  const json& object_;
  std::string where_, prefix_;
};

Architecture read_architecture(const Fields& f) {
  constexpr const char* kHint =
      "supported: DeepseekV2ForCausalLM, DeepseekV3ForCausalLM, Qwen2ForCausalLM, LlamaForCausalLM";
  std::string name;
  if (f.has("architectures")) {
    const json& list = f.required("architectures");
    if (!list.is_array() || list.size() != 1 || !list[0].is_string()) {
      f.refuse("architectures must be a list of one name", kHint);
    }
    name = list[0].get<std::string>();
  } else {
    std::string type = f.text("model_type", "");
    if (type == "deepseek_v2")
      name = "DeepseekV2ForCausalLM";
    else if (type == "deepseek_v3")
      name = "DeepseekV3ForCausalLM";
    else if (type == "qwen2")
      name = "Qwen2ForCausalLM";
    else if (type == "llama")
      name = "LlamaForCausalLM";
    else
      f.refuse(fmt::format("there is no architectures, and model_type is \"{}\"", printable(type)),
               kHint);
  }
  for (Architecture a : {Architecture::kDeepseekV2, Architecture::kDeepseekV3, Architecture::kQwen2,
                         Architecture::kLlama}) {
    if (name == architecture_name(a)) return a;
  }
  f.refuse(fmt::format("architecture \"{}\" is not supported", printable(name)), kHint);
}

void refuse_partial_rotation(const Fields& f) {
  if (f.number("partial_rotary_factor", 1.0) != 1.0)
    f.refuse("partial_rotary_factor is not 1", "partly rotated heads are not supported");
}

// What is special to yarn. DeepSeek's own code has the factor of cos and sin from two mscales;
// transformers' Qwen2 and Llama have attention_factor, or the same where both mscales are given.
void read_yarn(const Fields& s, bool mla, RopeConfig& r) {
  r.beta_fast = s.number("beta_fast", r.beta_fast);
  r.beta_slow = s.number("beta_slow", r.beta_slow);
  if (!s.boolean("truncate", true))
    s.refuse("truncate is false", "the ramp's bounds are rounded here, as DeepSeek's are");
  double mscale = s.number("mscale", r.mscale), all = s.number("mscale_all_dim", r.mscale_all_dim);
  r.attention_factor = s.number("attention_factor", r.attention_factor);
  if (mla) {
    r.mscale = mscale;
    r.mscale_all_dim = all;
  } else if (r.attention_factor == 0 && mscale != 0 && all != 0) {
    r.attention_factor = yarn_mscale(r.factor, mscale) / yarn_mscale(r.factor, all);
  }
}

// rope_theta with rope_scaling, or both in rope_parameters as transformers 5 writes them.
RopeConfig read_rope(const Fields& f, bool mla, int64_t max_position_embeddings) {
  RopeConfig r;
  r.theta = f.number("rope_theta", 10000.0);
  const char* key = f.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!f.has(key)) return r;
  Fields s = f.object(key);
  r.theta = s.number("rope_theta", r.theta);
  refuse_partial_rotation(s);
  std::string type = s.text("rope_type", s.text("type", "default"));
  if (type == "default") return r;
  if (type == "linear") {
    r.scaling = RopeScaling::kLinear;
    r.factor = s.number("factor");
  } else if (type == "yarn") {
    r.scaling = RopeScaling::kYarn;
    r.factor = s.number("factor");
    r.original_max_position_embeddings =
        s.integer("original_max_position_embeddings", max_position_embeddings);
    read_yarn(s, mla, r);
  } else if (type == "llama3") {
    r.scaling = RopeScaling::kLlama3;
    r.factor = s.number("factor");
    r.original_max_position_embeddings = s.integer("original_max_position_embeddings");
    r.low_freq_factor = s.number("low_freq_factor");
    r.high_freq_factor = s.number("high_freq_factor");
  } else {
    s.refuse(fmt::format("rope_type \"{}\" is not supported", printable(type)),
             "supported: default, linear, yarn, llama3");
  }
  return r;
}

void read_mla(const Fields& f, ModelConfig& c) {
  c.attention = AttentionKind::kMla;
  c.q_lora_rank = f.integer("q_lora_rank", 0);
  c.kv_lora_rank = f.integer("kv_lora_rank");
  c.qk_nope_head_dim = f.integer("qk_nope_head_dim");
  c.qk_rope_head_dim = f.integer("qk_rope_head_dim");
  c.v_head_dim = f.integer("v_head_dim");
  c.attention_bias = f.boolean("attention_bias", false);
  if (!f.boolean("rope_interleave", true)) {
    f.refuse("rope_interleave is false",
             "DeepSeek checkpoints rotate neighbouring pairs; set it to true");
  }
}

void read_gqa(const Fields& f, ModelConfig& c) {
  c.attention = AttentionKind::kGqa;
  c.head_dim = f.integer("head_dim", 0);
  if (c.head_dim == 0 && c.num_attention_heads > 0 && c.hidden_size % c.num_attention_heads == 0) {
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  // Qwen2's q, k and v always have biases; transformers reads no attention_bias there.
  c.attention_bias = c.architecture == Architecture::kQwen2 || f.boolean("attention_bias", false);
  if (f.boolean("use_mrope", false))
    f.refuse("use_mrope is true", "multimodal RoPE is not supported");
}

// Within the window of Qwen2's sliding layers full attention is the same.
void limit_to_window(const Fields& f, ModelConfig& c) {
  if (!f.boolean("use_sliding_window", false)) return;
  int64_t window = f.integer("sliding_window", 4096), full = f.integer("max_window_layers", 28);
  if (full >= c.num_hidden_layers || window >= c.max_position_embeddings) return;
  log_info("{}: sliding windows are not supported: the context ends at the window of {} tokens",
           f.where(), window);
  c.max_position_embeddings = window;
}

void read_experts(const Fields& f, ModelConfig& c) {
  bool v3 = c.architecture == Architecture::kDeepseekV3;
  c.n_routed_experts = f.integer("n_routed_experts", 0);
  c.first_k_dense_replace = f.integer("first_k_dense_replace", 0);
  c.moe_layer_freq = f.integer("moe_layer_freq", 1);
  if (c.n_routed_experts == 0) return;
  c.n_shared_experts = f.integer("n_shared_experts", 0);
  c.num_experts_per_tok = f.integer("num_experts_per_tok");
  c.moe_intermediate_size = f.integer("moe_intermediate_size");
  c.n_group = f.integer("n_group", 1);
  c.topk_group = f.integer("topk_group", 1);
  c.norm_topk_prob = f.boolean("norm_topk_prob", v3);
  c.routed_scaling_factor = f.number("routed_scaling_factor", 1.0);
  c.aux_loss_alpha = f.number("aux_loss_alpha", 0.0);
  c.seq_aux = f.boolean("seq_aux", true);
  std::string scoring = f.text("scoring_func", v3 ? "sigmoid" : "softmax");
  if (scoring == "softmax")
    c.scoring_func = ScoringFunc::kSoftmax;
  else if (scoring == "sigmoid")
    c.scoring_func = ScoringFunc::kSigmoid;
  else
    f.refuse(fmt::format("scoring_func \"{}\" is not supported", printable(scoring)),
             "supported: softmax, sigmoid");
  std::string method = f.text("topk_method", v3 ? "noaux_tc" : "greedy");
  if (method == "greedy" || method == "gready")
    c.topk_method = TopkMethod::kGreedy;  // "gready": the first V2-Lite
  else if (method == "group_limited_greedy")
    c.topk_method = TopkMethod::kGroupLimitedGreedy;
  else if (method == "noaux_tc")
    c.topk_method = TopkMethod::kNoauxTc;
  else
    f.refuse(fmt::format("topk_method \"{}\" is not supported", printable(method)),
             "supported: greedy, group_limited_greedy, noaux_tc");
}

Fp8Config read_fp8(const Fields& f) {
  Fp8Config out;
  if (!f.has("quantization_config")) return out;
  Fields q = f.object("quantization_config");
  std::string method = q.text("quant_method", ""), fmt_name = q.text("fmt", "e4m3");
  if (method != "fp8" || fmt_name != "e4m3") {
    q.refuse(fmt::format("quant_method \"{}\" with fmt \"{}\" is not supported", printable(method),
                         printable(fmt_name)),
             "supported: fp8 with e4m3, as DeepSeek publishes");
  }
  std::vector<int64_t> block = q.integers("weight_block_size");
  if (block.size() != 2)
    q.refuse("weight_block_size must be two integers", "DeepSeek uses [128, 128]");
  if (block[0] != kFp8Block || block[1] != kFp8Block) {
    q.refuse(fmt::format("weight_block_size [{}, {}] is not supported", block[0], block[1]),
             fmt::format("supported: [{0}, {0}], as DeepSeek publishes; convert the checkpoint to "
                         "bf16",
                         kFp8Block));
  }
  out.block_rows = block[0];
  out.block_cols = block[1];
  std::string scale = q.text("scale_fmt", "");
  if (scale != "" && scale != "ue8m0") {
    q.refuse(fmt::format("scale_fmt \"{}\" is not supported", printable(scale)),
             "supported: ue8m0, or none");
  }
  out.ue8m0 = scale == "ue8m0";
  return out;
}

nlohmann::ordered_json write_rope(const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  nlohmann::ordered_json s;
  if (r.scaling == RopeScaling::kNone) return nullptr;
  if (r.scaling == RopeScaling::kLinear)
    return {{"factor", r.factor}, {"type", "linear"}, {"rope_type", "linear"}};
  if (r.scaling == RopeScaling::kYarn) {
    s["beta_fast"] = r.beta_fast;
    s["beta_slow"] = r.beta_slow;
    s["factor"] = r.factor;
    if (c.is_mla()) {
      s["mscale"] = r.mscale;
      s["mscale_all_dim"] = r.mscale_all_dim;
    }
    if (r.attention_factor > 0) s["attention_factor"] = r.attention_factor;
  } else {
    s["factor"] = r.factor;
    s["high_freq_factor"] = r.high_freq_factor;
    s["low_freq_factor"] = r.low_freq_factor;
  }
  s["original_max_position_embeddings"] = r.original_max_position_embeddings;
  const char* type = r.scaling == RopeScaling::kYarn ? "yarn" : "llama3";
  s["type"] = type;  // both spellings: DeepSeek's own code reads the first, transformers the second
  s["rope_type"] = type;
  return s;
}

const char* model_type(Architecture a) {
  switch (a) {
    case Architecture::kDeepseekV2:
      return "deepseek_v2";
    case Architecture::kDeepseekV3:
      return "deepseek_v3";
    case Architecture::kQwen2:
      return "qwen2";
    case Architecture::kLlama:
      return "llama";
  }
  CHECK(false);
  return "";
}

void write_mla_and_experts(const ModelConfig& c, nlohmann::ordered_json& j) {
  j["q_lora_rank"] =
      c.q_lora_rank > 0 ? nlohmann::ordered_json(c.q_lora_rank) : nlohmann::ordered_json(nullptr);
  j["kv_lora_rank"] = c.kv_lora_rank;
  j["qk_nope_head_dim"] = c.qk_nope_head_dim;
  j["qk_rope_head_dim"] = c.qk_rope_head_dim;
  j["v_head_dim"] = c.v_head_dim;
  j["rope_interleave"] = true;
  j["first_k_dense_replace"] = c.first_k_dense_replace;
  j["moe_layer_freq"] = c.moe_layer_freq;
  if (c.n_routed_experts == 0) {
    j["n_routed_experts"] = nullptr;
  } else {
    j["n_routed_experts"] = c.n_routed_experts;
    j["n_shared_experts"] = c.n_shared_experts > 0 ? nlohmann::ordered_json(c.n_shared_experts)
                                                   : nlohmann::ordered_json(nullptr);
    j["num_experts_per_tok"] = c.num_experts_per_tok;
    j["moe_intermediate_size"] = c.moe_intermediate_size;
    j["scoring_func"] = c.scoring_func == ScoringFunc::kSigmoid ? "sigmoid" : "softmax";
    j["topk_method"] = c.topk_method == TopkMethod::kNoauxTc              ? "noaux_tc"
                       : c.topk_method == TopkMethod::kGroupLimitedGreedy ? "group_limited_greedy"
                                                                          : "greedy";
    j["n_group"] = c.n_group;
    j["topk_group"] = c.topk_group;
    j["norm_topk_prob"] = c.norm_topk_prob;
    j["routed_scaling_factor"] = c.routed_scaling_factor;
    j["aux_loss_alpha"] = c.aux_loss_alpha;
    j["seq_aux"] = c.seq_aux;
  }
  if (c.architecture == Architecture::kDeepseekV3)
    j["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
  j["wels"] = {{"mtp_hidden_after_norm", c.mtp_hidden_after_norm}};
}

}  // namespace

ModelConfig parse_hf_config(std::string_view text, const std::string& where) {
  json root = parse_json(text, where);
  if (!root.is_object())
    throw Error(where, "the file is not a JSON object", "give a Hugging Face config.json");
  Fields f(root, where);
  ModelConfig c;
  c.architecture = read_architecture(f);
  c.vocab_size = f.integer("vocab_size");
  c.hidden_size = f.integer("hidden_size");
  c.num_hidden_layers = f.integer("num_hidden_layers");
  c.intermediate_size = f.integer("intermediate_size");
  c.num_attention_heads = f.integer("num_attention_heads");
  c.num_key_value_heads = f.integer("num_key_value_heads", c.num_attention_heads);
  c.max_position_embeddings = f.integer("max_position_embeddings", 2048);
  bool deepseek =
      c.architecture == Architecture::kDeepseekV2 || c.architecture == Architecture::kDeepseekV3;
  if (deepseek) {
    read_mla(f, c);
    read_experts(f, c);
    if (c.architecture == Architecture::kDeepseekV3) {
      c.num_nextn_predict_layers = f.integer("num_nextn_predict_layers", 0);
    }
  } else {
    read_gqa(f, c);
  }
  if (f.has("wels"))
    c.mtp_hidden_after_norm = f.object("wels").boolean("mtp_hidden_after_norm", true);
  std::string act = f.text("hidden_act", "silu");
  if (act != "silu")
    f.refuse(fmt::format("hidden_act \"{}\" is not supported", printable(act)), "supported: silu");
  if (f.boolean("mlp_bias", false))
    f.refuse("mlp_bias is true", "FFNs with bias are not supported");
  refuse_partial_rotation(f);
  c.rope = read_rope(f, deepseek, c.max_position_embeddings);
  if (!deepseek) limit_to_window(f, c);
  c.rms_norm_eps = f.number("rms_norm_eps", 1e-6);
  c.tie_word_embeddings = f.boolean("tie_word_embeddings", false);
  c.initializer_range = f.number("initializer_range", 0.02);
  std::vector<int64_t> bos = f.integers("bos_token_id");
  c.bos_token_id = bos.empty() ? -1 : bos[0];
  c.eos_token_ids = f.integers("eos_token_id");
  c.pad_token_id = f.integer("pad_token_id", -1);
  c.torch_dtype = f.text("torch_dtype", f.text("dtype", "bfloat16"));
  c.fp8 = read_fp8(f);
  drop_unknown_tokens(c, where);
  c.validate(where);
  return c;
}

ModelConfig load_hf_config(const std::string& file_or_folder) {
  namespace fs = std::filesystem;
  std::error_code ec;
  std::string path = fs::is_directory(file_or_folder, ec)
                         ? (fs::path(file_or_folder) / "config.json").string()
                         : file_or_folder;
  MappedFile file(path);
  return parse_hf_config(file.text(), path);
}

std::string to_hf_config(const ModelConfig& c) {
  nlohmann::ordered_json j;
  j["architectures"] = {architecture_name(c.architecture)};
  j["model_type"] = model_type(c.architecture);
  j["vocab_size"] = c.vocab_size;
  j["hidden_size"] = c.hidden_size;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["intermediate_size"] = c.intermediate_size;
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_key_value_heads"] = c.num_key_value_heads;
  if (!c.is_mla()) j["head_dim"] = c.head_dim;
  if (c.architecture != Architecture::kQwen2) j["attention_bias"] = c.attention_bias;
  if (c.is_mla()) write_mla_and_experts(c, j);
  j["hidden_act"] = "silu";
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["rope_theta"] = c.rope.theta;
  j["rope_scaling"] = write_rope(c);
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["initializer_range"] = c.initializer_range;
  if (c.bos_token_id >= 0) j["bos_token_id"] = c.bos_token_id;
  if (c.eos_token_ids.size() == 1) j["eos_token_id"] = c.eos_token_ids[0];
  if (c.eos_token_ids.size() > 1) j["eos_token_id"] = c.eos_token_ids;
  if (c.pad_token_id >= 0) j["pad_token_id"] = c.pad_token_id;
  j["torch_dtype"] = c.torch_dtype;
  j["attention_dropout"] = 0.0;
  j["use_cache"] = true;
  if (c.fp8.block_rows > 0) {
    j["quantization_config"] = {{"activation_scheme", "dynamic"},
                                {"fmt", "e4m3"},
                                {"quant_method", "fp8"},
                                {"weight_block_size", {c.fp8.block_rows, c.fp8.block_cols}}};
    if (c.fp8.ue8m0) j["quantization_config"]["scale_fmt"] = "ue8m0";
  }
  return j.dump(2) + "\n";
}

}  // namespace wels
