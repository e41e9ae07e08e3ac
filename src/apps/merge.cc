// wels merge: adapters (model/lora.h) joined with the model that they were trained over, as a
// Hugging Face folder of its own.
#include <fmt/format.h>

#include <filesystem>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "apps/merge_command.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "model/checkpoint.h"
#include "model/lora.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Model> load_base(const std::string& path) {
  if (!fs::is_regular_file(path)) return load_model(resolve_whole_model(path), WeightStorage::kF32);
  auto file = std::make_shared<GgufCheckpoint>(path);
  auto model = std::make_unique<Model>(file->config());
  load_weights(*model, file, WeightStorage::kF32);
  return model;
}

// Whatever the adapters' folder has beside them and the trainer's state: tokenizer, chat template.
void copy_companions(const std::string& from, const std::string& to) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "special_tokens_map.json", "generation_config.json"}) {
    if (fs::exists(from + "/" + name))
      write_file_atomic(to + "/" + name, read_file(from + "/" + name));
  }
}

}  // namespace

void merge_job(const MergeFlags& f) {
  std::string folder = resolve_checkpoint(f.adapters);
  if (!fs::exists(folder + "/adapter_config.json"))
    throw Error(folder, "holds no adapters",
                "give a folder with adapter_config.json, or a run of "
                "`wels sft --lora`");
  if (fs::exists(f.out) && !fs::is_empty(f.out))
    throw Error(f.out, "is there already", "name a new folder");
  LoraConfig config = load_lora_config(folder);
  std::string base = adapter_base(folder, f.base);
  std::unique_ptr<Model> model = load_base(base);
  add_lora(*model, config, DType::kF32, 0);
  load_lora(folder, *model);
  int64_t values = count_lora(*model);
  merge_lora(*model);
  std::string tmp = f.out + ".tmp";
  fs::remove_all(tmp);
  make_folder(tmp);
  save_model(tmp, *model, f.type == "f32" ? DType::kF32 : DType::kBF16, {{"format", "pt"}});
  copy_companions(folder, tmp);
  fs::remove(f.out);  // an empty folder
  fs::rename(tmp, f.out);
  fmt::print("{}: {} with {} values of adapters, as {}\n", f.out, base,
             human_count(static_cast<double>(values)), f.type);
}

void add_merge(CLI::App& app, Command& run) {
  CLI::App* sub =
      app.add_subcommand("merge", "join adapters of `wels sft --lora` with their model");
  auto f = std::make_shared<MergeFlags>();
  sub->add_option("adapters", f->adapters, "run folder, or folder with adapter_config.json")
      ->required();
  sub->add_option("-o,--out", f->out, "the model folder to write")->required();
  sub->add_option("--base", f->base, "the model (default: the one that adapter_config.json names)");
  sub->add_option("--type", f->type, "bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  sub->callback([f, &run] { run = [f] { return merge_job(*f), 0; }; });
}

}  // namespace wels
