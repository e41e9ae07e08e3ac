// wels export: a checkpoint as one GGUF file that llama.cpp loads, as precise as it is.
#include "apps/commands.h"
#include "apps/gguf_job.h"

namespace wels {

void add_export(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("export", "write a checkpoint as GGUF, for llama.cpp");
  auto job = std::make_shared<GgufJob>();
  job->type = "bf16";
  sub->add_option("model", job->model, "model folder, run folder or GGUF file")->required();
  sub->add_option("--gguf", job->out, "the file to write")->required();
  sub->add_option("--type", job->type, "bf16, f16, f32, or a type of `wels quantize`")
      ->capture_default_str();
  sub->add_flag("--mtp", job->mtp,
                "with the MTP modules (readers that do not know them refuse the file)");
  sub->callback([job, &run] { run = [job] { return write_gguf_file(*job); }; });
}

}  // namespace wels
