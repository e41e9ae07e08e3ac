// wels info: what is in a checkpoint, what its parameters add up to, what it needs.
#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "base/error.h"
#include "base/progress.h"
#include "formats/gguf_checkpoint.h"
#include "formats/hf_config.h"
#include "formats/safetensors.h"
#include "train/memory_plan.h"

namespace wels {
namespace {

std::string bytes_text(int64_t n) { return human_bytes(static_cast<double>(n)); }
std::string count_text(int64_t n) { return human_count(static_cast<double>(n)); }

void print_config(const ModelConfig& c) {
  ParameterCount n = count_parameters(c);
  fmt::print("{}: {} blocks, width {}, vocabulary {}\n", architecture_name(c.architecture),
             c.num_hidden_layers, c.hidden_size, c.vocab_size);
  if (c.is_mla()) {
    fmt::print("attention: MLA, {} heads of {} + {} (values {}), KV rank {}, query rank {}\n",
               c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim,
               c.kv_lora_rank, c.q_lora_rank > 0 ? std::to_string(c.q_lora_rank) : "none");
  } else {
    fmt::print("attention: {} query heads, {} key/value heads of {}\n", c.num_attention_heads,
               c.num_key_value_heads, c.head_dim);
  }
  if (c.n_routed_experts > 0) {
    fmt::print(
        "experts: {} of {} + {} shared, width {}, {} of {} groups; first {} blocks dense ({})\n",
        c.num_experts_per_tok, c.n_routed_experts, c.n_shared_experts, c.moe_intermediate_size,
        c.topk_group, c.n_group, c.first_k_dense_replace, c.intermediate_size);
  }
  fmt::print("parameters: {} total, {} active per token (embedding {}, head {})",
             count_text(n.total), count_text(n.active), count_text(n.embedding),
             count_text(n.head));
  if (n.mtp > 0)
    fmt::print(", and {} in {} MTP module(s)", count_text(n.mtp), c.num_nextn_predict_layers);
  int64_t layers = c.num_hidden_layers + c.num_nextn_predict_layers;
  fmt::print("\nKV cache: {} values per token and block; bf16: {} per 1,000 tokens\n",
             c.kv_values_per_token(), bytes_text(2000 * layers * c.kv_values_per_token()));
  fmt::print("inference, weights in bf16: {}\n", bytes_text(2 * (n.total + n.mtp)));
  fmt::print("training, micro-batch of 4,096 tokens, bf16, AdamW: {}\n",
             plan_memory(c, 4096, DType::kBF16, false, false).text());
}

void print_types(const std::map<std::string, std::pair<int64_t, int64_t>>& types) {
  for (auto& [name, sum] : types)
    fmt::print("  {:8} {:5} tensors, {}\n", name, sum.first, bytes_text(sum.second));
}

// A metadata value in a line; long arrays by their length.
std::string value_text(const GgufValue& v) {
  struct Text {
    std::string operator()(const std::string& s) const {
      return s.size() > 80 ? s.substr(0, 77) + "..." : s;
    }
    std::string operator()(const GgufArray& a) const {
      return fmt::format("[{} values]", a.size());
    }
    std::string operator()(bool b) const { return b ? "true" : "false"; }
    std::string operator()(uint64_t n) const { return std::to_string(n); }
    std::string operator()(int64_t n) const { return std::to_string(n); }
    std::string operator()(double x) const { return fmt::format("{}", x); }
  };
  return std::visit(Text{}, v.value);
}

int info_command(const std::string& path, bool list) {
  namespace fs = std::filesystem;
  std::map<std::string, std::pair<int64_t, int64_t>> types;
  auto one = [&](const std::string& name, DType dtype, const std::vector<int64_t>& shape,
                 size_t size) {
    auto& t = types[std::string(wels::name(dtype))];
    ++t.first;
    t.second += static_cast<int64_t>(size);
    if (list) fmt::print("{:60} {:8} [{}]\n", name, wels::name(dtype), fmt::join(shape, ", "));
  };
  if (path.ends_with(".gguf")) {
    GgufReader gguf(path);
    for (const TensorEntry& t : gguf->tensors) one(t.name, t.dtype, t.shape, t.data.size());
    for (const auto& [key, value] : gguf->metadata) fmt::print("{} = {}\n", key, value_text(value));
    print_config(gguf_model_config(gguf.content()));
    print_types(types);
    return 0;
  }
  if (path.ends_with(".json")) {
    print_config(load_hf_config(path));
    return 0;
  }
  std::string folder = fs::is_directory(path) ? resolve_checkpoint(path) : path;
  if (fs::is_directory(folder)) {
    fmt::print("{}\n", folder);
    print_config(load_hf_config(folder));
  }
  SafetensorsReader reader(folder);
  for (const TensorEntry& t : reader.tensors()) one(t.name, t.dtype, t.shape, t.data.size());
  for (const auto& [key, value] : reader.metadata()) fmt::print("metadata: {} = {}\n", key, value);
  print_types(types);
  return 0;
}

}  // namespace

void add_info(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("info", "what is in a checkpoint, and what it needs");
  struct Flags {
    std::string path;
    bool list = false;
  };
  auto f = std::make_shared<Flags>();
  sub->add_option("path", f->path, "model or run folder, .safetensors, .gguf or config.json")
      ->required();
  sub->add_flag("--tensors", f->list, "list every tensor");
  sub->callback([f, &run] { run = [f] { return info_command(f->path, f->list); }; });
}

}  // namespace wels
