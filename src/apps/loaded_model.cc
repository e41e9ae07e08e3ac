#include "apps/loaded_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/machine.h"
#include "data/hash.h"
#include "model/checkpoint.h"
#include "model/lora.h"
#include "text/gguf_vocab.h"
#include "text/vocab_source.h"
#include "train/memory_plan.h"
#include "train/run_folder.h"

namespace wels {

std::string resolve_checkpoint(const std::string& path) {
  namespace fs = std::filesystem;
  if (path.empty())
    throw Error("model", "its path is empty", "give a folder with config.json, or a GGUF file");
  for (const char* name : {"/config.json", "/adapter_config.json"}) {
    if (fs::exists(path + name)) return path;
  }
  std::string best = best_checkpoint(path);
  if (best.empty()) {
    throw Error(path,
                fs::exists(path) ? "is neither a model folder nor a run folder with checkpoints"
                                 : "does not exist",
                "give a folder with config.json, or train one: wels pretrain --out " + path);
  }
  return best;
}

namespace {

void open_gguf(LoadedModel& m, const std::string& path) {
  auto file = std::make_shared<GgufCheckpoint>(path);
  const GgufContent& content = file->content();
  if (!has_vocab(content))
    throw Error(path, "has no tokenizer", "export it from a folder with its tokenizer.json");
  m.tokenizer.emplace(parse_gguf_vocab(content));
  m.model = std::make_unique<Model>(file->config());
  load_weights(*m.model, file, WeightStorage::kMapped);
}

// Where the checkpoint is marked with its tokenizer, as those of wels are.
void warn_of_other_tokenizer(const LoadedModel& m, const std::string& folder) {
  const std::map<std::string, std::string> metadata = SafetensorsReader(folder).metadata();
  auto mark = metadata.find("tokenizer");
  if (!metadata.contains("wels") || mark == metadata.end()) return;
  if (mark->second == fmt::format("{:016x}", hash_bytes(read_file(folder + "/tokenizer.json"))))
    return;
  log_warn("{}/tokenizer.json: is not the one that the model was trained with ({} tokens, {} rows)",
           folder, m.tokenizer->vocab_size(), m.model->config().vocab_size);
}

void open_folder(LoadedModel& m, const std::string& folder) {
  m.model = load_model(folder, WeightStorage::kMapped);
  if (!std::filesystem::exists(folder + "/tokenizer.json")) return;
  m.tokenizer.emplace(Tokenizer::load(folder));
  warn_of_other_tokenizer(m, folder);
}

// The adapters' texts begin as those of the model that they are merged to will, whatever their
// base's do.
void begin_as_adapters(LoadedModel& m, const std::string& base) {
  if (!m.tokenizer || !std::filesystem::exists(m.folder + "/chat_template.jinja")) return;
  VocabSource source = load_vocab_source(base);
  if (begin_as_chats(source)) m.tokenizer.emplace(std::move(source));
}

}  // namespace

LoadedModel open_model(const std::string& path, const std::string& device,
                       const std::string& dtype) {
  LoadedModel m;
  m.dev = make_device(device);
  bool one_file = std::filesystem::is_regular_file(path);
  m.folder = one_file ? path : resolve_checkpoint(path);
  std::string weights = m.folder;
  bool adapted = !one_file && std::filesystem::exists(m.folder + "/adapter_config.json");
  if (adapted) {
    weights = adapter_base(m.folder);
    one_file = std::filesystem::is_regular_file(weights);
    if (!one_file) weights = resolve_whole_model(weights);
  }
  one_file ? open_gguf(m, weights) : open_folder(m, weights);
  if (adapted) {
    add_lora(*m.model, load_lora_config(m.folder), DType::kF32, 0);
    load_lora(m.folder, *m.model);
    begin_as_adapters(m, weights);
  }
  if (m.tokenizer && m.tokenizer->vocab_size() > m.model->config().vocab_size) {
    throw Error(one_file ? weights : weights + "/tokenizer.json",
                fmt::format("has {} tokens, the model's embedding {}", m.tokenizer->vocab_size(),
                            m.model->config().vocab_size),
                "use the tokenizer the model was trained with");
  }
  m.dtype = activation_type(*m.dev, dtype);
  return m;
}

void require_tokenizer(const LoadedModel& m) {
  if (m.tokenizer) return;
  throw Error(m.folder, "has no tokenizer.json", "copy the model's tokenizer.json into the folder");
}

std::string resolve_whole_model(const std::string& path) {
  std::string folder = resolve_checkpoint(path);
  if (!std::filesystem::exists(folder + "/adapter_config.json")) return folder;
  throw Error(folder, "holds adapters, not a whole model",
              "join them with their model first: wels merge " + path + " --out FOLDER");
}

std::string adapter_base(const std::string& folder, const std::string& given) {
  std::string base = given.empty() ? load_lora_config(folder).base : given;
  if (!base.empty() && std::filesystem::exists(base)) return base;
  throw Error(given.empty() ? folder + "/adapter_config.json" : given,
              given.empty() ? fmt::format("names the model \"{}\", which is not there", base)
                            : "does not exist",
              "set base_model_name_or_path to the model's folder or GGUF file");
}

void require_memory_for(const LoadedModel& m, int64_t context, DType cache_dtype,
                        double expert_share, bool tell) {
  constexpr int64_t kLarge = int64_t{1} << 30;
  InferenceNeed need = require_inference_memory(*m.dev, m.model->config(),
                                                {.dtype = m.dtype,
                                                 .cache_dtype = cache_dtype,
                                                 .expert_share = expert_share,
                                                 .context = context,
                                                 .stored = stored_types(*m.model)},
                                                memory_available_bytes());
  if (tell && need.plan.resident() >= kLarge) log_info("memory: {}", need.text);
}

std::vector<int32_t> end_tokens(const LoadedModel& m) {
  std::vector<int32_t> out;
  if (m.tokenizer && m.tokenizer->eos()) out.push_back(*m.tokenizer->eos());
  for (int64_t id : m.model->config().eos_token_ids) {
    auto token = static_cast<int32_t>(id);
    if (std::find(out.begin(), out.end(), token) == out.end()) out.push_back(token);
  }
  return out;
}

std::optional<ChatTemplate> choose_template(const std::string& name, const LoadedModel& m) {
  if (name == "none") return std::nullopt;
  std::optional<ChatTemplate> out =
      name == "auto" ? find_chat_template(m.folder) : chat_template_by_name(name);
  if (out) require_markers(*out, *m.tokenizer, m.folder);
  return out;
}

std::string template_flag_help() {
  std::string out = "auto (the model's own), none (continue the text)";
  for (const ChatTemplateName& t : chat_template_names()) out += std::string(", ") + t.name;
  return out;
}

DType cache_type(const std::string& flag, DType dtype) {
  return flag == "f32"    ? DType::kF32
         : flag == "bf16" ? DType::kBF16
         : flag == "q8"   ? DType::kQ8_0
                          : dtype;
}

DType activation_type(const Device& dev, const std::string& dtype) {
  bool fast_bf16 = dev.product_dtype(DType::kBF16) == DType::kBF16;
  return dtype == "bf16" || (dtype == "auto" && fast_bf16) ? DType::kBF16 : DType::kF32;
}

}  // namespace wels
