// wels merge: adapters (model/lora.h) joined with the model that they were trained over, as a
// Hugging Face folder of its own.
#include <fmt/format.h>

#include <filesystem>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "apps/merge_command.h"
#include "apps/model_folder.h"
#include "base/error.h"
#include "base/progress.h"
#include "model/lora.h"
#include "text/vocab_source.h"

namespace wels {
namespace fs = std::filesystem;

namespace {

// The model's files, the adapters' over them: adapters need not bring a tokenizer.
std::map<std::string, std::string> files_of_both(const std::string& base,
                                                 const std::string& adapters) {
  std::map<std::string, std::string> out = files_beside_weights(base);
  std::map<std::string, std::string> own = files_beside_weights(adapters);
  // A chat_template.jinja would hide the template in the adapters' tokenizer_config.json.
  if (!load_chat_template(adapters).empty()) out.erase("chat_template.jinja");
  for (auto& [name, text] : own) out[name] = std::move(text);
  return out;
}

}  // namespace

void merge_job(const MergeFlags& f) {
  std::string folder = resolve_checkpoint(f.adapters);
  if (!fs::exists(folder + "/adapter_config.json"))
    throw Error(folder, "holds no adapters",
                "give a folder with adapter_config.json, or a run with --lora");
  if (fs::exists(f.out) && !fs::is_empty(f.out))  // before the work
    throw Error(f.out, "is there already", "name a new folder");
  LoraConfig config = load_lora_config(folder);
  std::string base = adapter_base(folder, f.base);
  std::unique_ptr<Model> model = load_whole_model(base);
  add_lora(*model, config, DType::kF32, 0);
  load_lora(folder, *model);
  int64_t values = count_lora(*model);
  merge_lora(*model);
  write_model_folder(f.out, *model, f.type == "f32" ? DType::kF32 : DType::kBF16,
                     files_of_both(base, folder));
  fmt::print("{}: {} with {} values of adapters, as {}\n", f.out, base,
             human_count(static_cast<double>(values)), f.type);
}

void add_merge(CLI::App& app, Command& run) {
  CLI::App* sub =
      app.add_subcommand("merge", "join adapters that --lora has trained with their model");
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
