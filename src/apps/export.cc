// wels export: a checkpoint as one GGUF file that llama.cpp loads, as precise as it is, or as a
// Hugging Face folder without what a trainer keeps.
#include <fmt/format.h>

#include "apps/commands.h"
#include "apps/gguf_job.h"
#include "apps/model_folder.h"
#include "base/error.h"
#include "base/progress.h"

namespace wels {
namespace {

struct ExportFlags {
  GgufJob job;
  std::string folder;
};

int write_folder(const ExportFlags& f) {
  if (f.job.mtp) throw Error("--mtp", "a folder has all modules", "leave it out");
  if (f.job.type != "bf16" && f.job.type != "f32")
    throw Error("--type", "a folder is written in bf16 or f32, not in " + f.job.type,
                "use --gguf FILE for other types");
  std::unique_ptr<Model> model = load_whole_model(f.job.model);
  write_model_folder(f.folder, *model, f.job.type == "f32" ? DType::kF32 : DType::kBF16,
                     files_beside_weights(f.job.model));
  ParameterCount n = count_parameters(model->config());
  fmt::print("{}: {} parameters as {}\n", f.folder,
             human_count(static_cast<double>(n.total + n.mtp)), f.job.type);
  return 0;
}

int export_command(const ExportFlags& f) {
  if (f.job.out.empty() == f.folder.empty())
    throw Error("export", "wants to know what to write", "give --gguf FILE or --folder FOLDER");
  return f.folder.empty() ? write_gguf_file(f.job) : write_folder(f);
}

}  // namespace

void add_export(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand(
      "export", "write a checkpoint as GGUF, for llama.cpp, or as a folder for Hugging Face");
  auto f = std::make_shared<ExportFlags>();
  f->job.type = "bf16";
  sub->add_option("model", f->job.model, "model folder, run folder or GGUF file")->required();
  sub->add_option("--gguf", f->job.out, "the file to write");
  sub->add_option("--folder", f->folder,
                  "the new folder to write: config.json, safetensors, tokenizer");
  sub->add_option("--type", f->job.type,
                  "bf16, f16, f32, or a type of `wels quantize`; of a folder bf16 or f32")
      ->capture_default_str();
  sub->add_flag("--mtp", f->job.mtp,
                "GGUF with the MTP modules (readers that do not know them refuse the file)");
  sub->callback([f, &run] { run = [f] { return export_command(*f); }; });
}

}  // namespace wels
