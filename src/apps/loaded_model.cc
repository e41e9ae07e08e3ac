#include "apps/loaded_model.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/machine.h"
#include "formats/json.h"
#include "model/checkpoint.h"
#include "text/gguf_vocab.h"
#include "train/memory_plan.h"
#include "train/run_folder.h"

namespace wels {

std::string resolve_checkpoint(const std::string& path) {
  namespace fs = std::filesystem;
  if (fs::exists(path + "/config.json")) return path;
  std::vector<int64_t> steps = list_checkpoints(path);
  if (steps.empty()) {
    throw Error(path,
                fs::exists(path) ? "is neither a model folder nor a run folder with checkpoints"
                                 : "does not exist",
                "give a folder with config.json, or train one: wels pretrain --out " + path);
  }
  std::string newest = checkpoint_folder(path, steps.back());
  nlohmann::json j = parse_json(read_file(newest + "/trainer.json"), newest + "/trainer.json");
  int64_t best = j.contains("settings") ? j["settings"].value("best_step", int64_t{-1}) : -1;
  std::string best_folder = checkpoint_folder(path, best);
  return best >= 0 && fs::exists(best_folder + "/config.json") ? best_folder : newest;
}

namespace {

void open_gguf(LoadedModel& m) {
  auto file = std::make_shared<GgufCheckpoint>(m.folder);
  const GgufContent& content = file->content();
  if (!content.has("tokenizer.ggml.model") || content.text("tokenizer.ggml.model") == "none")
    throw Error(m.folder, "has no tokenizer", "export it from a folder with its tokenizer.json");
  m.tokenizer.emplace(parse_gguf_vocab(content));
  m.model = std::make_unique<Model>(file->config());
  load_weights(*m.model, file, WeightStorage::kMapped);
}

}  // namespace

LoadedModel open_model(const std::string& path, const std::string& device,
                       const std::string& dtype) {
  LoadedModel m;
  m.dev = make_device(device);
  if (std::filesystem::is_regular_file(path)) {
    m.folder = path;
    open_gguf(m);
  } else {
    m.folder = resolve_checkpoint(path);
    m.model = load_model(m.folder, WeightStorage::kMapped);
    if (std::filesystem::exists(m.folder + "/tokenizer.json"))
      m.tokenizer.emplace(Tokenizer::load(m.folder));
  }
  if (m.tokenizer && m.tokenizer->vocab_size() > m.model->config().vocab_size) {
    bool one_file = std::filesystem::is_regular_file(path);
    throw Error(one_file ? m.folder : m.folder + "/tokenizer.json",
                fmt::format("has {} tokens, the model's embedding {}", m.tokenizer->vocab_size(),
                            m.model->config().vocab_size),
                "use the tokenizer the model was trained with");
  }
  m.dtype = activation_type(*m.dev, dtype);
  return m;
}

void require_memory_for(const LoadedModel& m, int64_t context, DType cache_dtype,
                        double expert_share) {
  require_inference_memory(*m.dev, m.model->config(),
                           {.dtype = m.dtype,
                            .cache_dtype = cache_dtype,
                            .expert_share = expert_share,
                            .context = context,
                            .stored = stored_types(*m.model)},
                           memory_available_bytes());
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
