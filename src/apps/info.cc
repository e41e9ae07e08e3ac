// wels info: what is in a checkpoint, what its parameters add up to, what it needs.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/machine.h"
#include "base/progress.h"
#include "formats/gguf_checkpoint.h"
#include "formats/hf_config.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "train/memory_plan.h"

namespace wels {
namespace {

std::string bytes_text(int64_t n) { return human_bytes(static_cast<double>(n)); }

// 1,234,567
std::string exact_text(int64_t n) {
  std::string s = std::to_string(n);
  for (size_t i = s.size(); i > 3;) s.insert(i -= 3, ",");
  return s;
}

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
             exact_text(n.total), exact_text(n.active), exact_text(n.embedding),
             exact_text(n.head));
  if (n.mtp > 0)
    fmt::print(", and {} in {} MTP module(s)", exact_text(n.mtp), c.num_nextn_predict_layers);
  fmt::print("\nKV cache: {} values per token and block; bf16: {} per 1,000 tokens, q8: {}\n",
             c.kv_values_per_token(), bytes_text(1000 * kv_token_bytes(c, DType::kBF16)),
             bytes_text(1000 * kv_token_bytes(c, DType::kQ8_0)));
}

// Columns of one plan each; parts that no plan has are left out.
void print_plans(const std::string& title, const std::vector<std::string>& columns,
                 const std::vector<MemoryPlan>& plans, int64_t available) {
  fmt::print("{:32}", title);
  for (const std::string& c : columns) fmt::print("{:>16}", c);
  fmt::print("\n");
  auto line = [&](const std::string& name, auto&& value) {
    if (std::all_of(plans.begin(), plans.end(), [&](auto& p) { return value(p) == 0; })) return;
    fmt::print("  {:30}", name);
    for (const MemoryPlan& p : plans) fmt::print("{:>16}", bytes_text(value(p)));
    fmt::print("\n");
  };
  std::vector<MemoryPlan::Part> parts = plans[0].parts();
  for (size_t i = 0; i < parts.size(); ++i)
    line(parts[i].name, [&](const MemoryPlan& p) { return p.parts()[i].bytes; });
  line("total", [](const MemoryPlan& p) { return p.total(); });
  fmt::print("  {:30}", "fits");
  for (const MemoryPlan& p : plans)
    fmt::print("{:>16}", p.total() - p.program <= available ? "yes" : "no");
  fmt::print("\n");
}

using StoredTypes = std::function<DType(const WeightSpec&)>;

// The plan by which generate, chat and serve load the model, and whether it fits.
void print_generating(const ModelConfig& c, const Device& dev, const StoredTypes& stored,
                      int64_t available) {
  InferenceShape shape{.dtype = activation_type(dev, "auto"),
                       .context = std::min<int64_t>(4096, c.max_position_embeddings),
                       .stored = stored};
  InferenceNeed need = inference_need(dev, c, shape, available);
  fmt::print("generating, {}, {} tokens\n", name(shape.dtype), shape.context);
  auto line = [](const char* what, int64_t bytes, const std::string& note = "") {
    fmt::print("  {:30}{:>16}{}{}\n", what, bytes_text(bytes), note.empty() ? "" : "  ", note);
  };
  line("packed weights", need.plan.packed);
  line("KV cache", need.plan.cache);
  line("work space", need.plan.work);
  line("total", need.plan.resident(),
       fmt::format("beside {} of the file, mapped: given back once packed",
                   bytes_text(need.plan.weights)));
  line("free", available,
       need.fits() ? fmt::format("it fits, with a context of up to {} tokens",
                                 std::min(need.longest_context, c.max_position_embeddings))
                   : "it does not fit: " + need.hint);
}

// stored: null: there are no weights, they count as what the config says.
void print_memory(const ModelConfig& c, const Device& dev, const StoredTypes& stored) {
  int64_t available = memory_available_bytes();
  print_generating(c, dev, stored ? stored : config_types(c), available);
  TrainingShape shape;
  shape.sequence_length = std::min(shape.sequence_length, c.max_position_embeddings);
  std::vector<MemoryPlan> plans = {plan_training(dev, c, shape)};
  shape.trainer.recompute = true;
  plans.push_back(plan_training(dev, c, shape));
  shape.trainer.recompute = false;
  shape.trainer.optimizer.muon = true;
  plans.push_back(plan_training(dev, c, shape));
  print_plans(fmt::format("training, {} tokens at a time", shape.micro_batch_tokens),
              {"bf16, AdamW", "--recompute", "Muon"}, plans, available);
}

void print_model(const ModelConfig& c, const Device& dev, const StoredTypes& stored) {
  print_config(c);
  print_memory(c, dev, stored);
}

// The types of tensors under Hugging Face's names; an expert's stands for its stack.
StoredTypes types_of(std::span<const TensorEntry> tensors) {
  std::map<std::string, DType> types;
  for (const TensorEntry& t : tensors) types[t.name] = t.dtype;
  return [types](const WeightSpec& s) {
    auto it = types.find(tensor_name(s.name, 0));
    return it == types.end() ? DType::kF32 : it->second;
  };
}

void print_types(const std::map<std::string, std::pair<int64_t, int64_t>>& types) {
  for (auto& [name, sum] : types)
    fmt::print("  {:8} {:5} tensors, {}\n", name, sum.first, bytes_text(sum.second));
}

// A metadata value in a line; long arrays by their length.
std::string value_text(const GgufValue& v) {
  struct Text {
    std::string operator()(const std::string& s) const {
      return printable(s.size() > 80 ? s.substr(0, 77) + "..." : s);
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

// By what it holds; a .gguf that holds something else is told so by its reader.
bool is_gguf(const std::string& path) {
  return path.ends_with(".gguf") ||
         (std::filesystem::is_regular_file(path) && MappedFile(path).text().starts_with("GGUF"));
}

int info_command(const std::string& path, bool list, const DeviceFlags& device) {
  namespace fs = std::filesystem;
  device.apply();
  std::unique_ptr<Device> dev = make_device(device.device);
  int64_t values = 0;
  std::map<std::string, std::pair<int64_t, int64_t>> types;
  auto one = [&](const std::string& name, DType dtype, const std::vector<int64_t>& shape,
                 size_t size) {
    auto& t = types[std::string(wels::name(dtype))];
    ++t.first;
    t.second += static_cast<int64_t>(size);
    values += std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    if (list) fmt::print("{:60} {:8} [{}]\n", name, wels::name(dtype), fmt::join(shape, ", "));
  };
  if (is_gguf(path)) {
    GgufReader gguf(path);
    for (const TensorEntry& t : gguf->tensors) one(t.name, t.dtype, t.shape, t.data.size());
    for (const auto& [key, value] : gguf->metadata)
      fmt::print("{} = {}\n", printable(key), value_text(value));
    ModelConfig c = gguf_model_config(gguf.content());
    print_model(c, *dev, types_of(gguf_weights(gguf.content(), c).tensors));
    print_types(types);
    return 0;
  }
  if (path.ends_with(".json")) {
    print_model(load_hf_config(path), *dev, nullptr);
    return 0;
  }
  bool is_folder = fs::is_directory(path);
  std::string folder = is_folder ? resolve_whole_model(path) : path;
  SafetensorsReader reader(folder);
  fmt::print("{}\n", folder);
  for (const TensorEntry& t : reader.tensors()) one(t.name, t.dtype, t.shape, t.data.size());
  for (const auto& [key, value] : reader.metadata())
    fmt::print("metadata: {} = {}\n", printable(key), printable(value));
  fs::path config = (is_folder ? fs::path(folder) : fs::path(path).parent_path()) / "config.json";
  if (fs::exists(config)) {
    ModelConfig c = load_hf_config(config.string());
    bool whole = values >= count_parameters(c).total;  // not one shard of several
    print_model(c, *dev, whole ? types_of(reader.tensors()) : StoredTypes());
  } else {
    fmt::print("values: {}; there is no config.json beside it to tell more\n", exact_text(values));
  }
  print_types(types);
  return 0;
}

}  // namespace

void add_info(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("info", "what is in a checkpoint, and what it needs");
  struct Flags {
    std::string path;
    bool list = false;
    DeviceFlags device;
  };
  auto f = std::make_shared<Flags>();
  sub->add_option("path", f->path, "model or run folder, .safetensors, GGUF file or config.json")
      ->required();
  sub->add_flag("--tensors", f->list, "list every tensor");
  f->device.add(sub);
  sub->callback([f, &run] { run = [f] { return info_command(f->path, f->list, f->device); }; });
}

}  // namespace wels
