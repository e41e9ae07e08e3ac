// wels quantize: a checkpoint as a smaller GGUF file.
#include "apps/commands.h"
#include "apps/gguf_job.h"

namespace wels {

void add_quantize(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("quantize", "write a checkpoint as a smaller GGUF file");
  struct Flags {
    GgufJob job;
    DeviceFlags threads;
  };
  auto f = std::make_shared<Flags>();
  GgufJob& job = f->job;
  job.type = "q4_k";
  job.calibration_tokens = 65536;
  sub->add_option("model", job.model, "model folder, run folder or GGUF file")->required();
  sub->add_option("-o,--out", job.out, "the file to write")->required();
  sub->add_option("--type", job.type,
                  "q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, iq4_nl, iq4_xs, mxfp4, q3_k, "
                  "q2_k; bf16, f16, f32. The K types are mixtures, as q4_k is Q4_K_M")
      ->capture_default_str();
  sub->add_option("--tensor", job.choices,
                  "PATTERN=TYPE for the tensors whose GGUF name matches, as "
                  "'blk.*.ffn_down_exps.weight=q3_k'; repeatable, the last match counts")
      ->type_name("PATTERN=TYPE")
      ->allow_extra_args(false);
  CLI::Option* calibration =
      sub->add_option("--calibration", job.calibration,
                      "text (.txt .md .jsonl, .gz .zst) or folder: the model runs over it, and the "
                      "columns that matter are kept more exactly");
  sub->add_option("--calibration-tokens", job.calibration_tokens, "how many tokens of it")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 40))
      ->needs(calibration)
      ->capture_default_str();
  sub->add_flag("--mtp", job.mtp,
                "with the MTP modules (readers that do not know them refuse the file)");
  sub->add_option("--threads", f->threads.threads, "threads (0: all)")->check(CLI::Range(0, 1024));
  sub->callback([f, &run] {
    run = [f] {
      f->threads.apply();
      return write_gguf_file(f->job);
    };
  });
}

}  // namespace wels
