// wels export: a checkpoint as one GGUF file that llama.cpp loads.
#include <fmt/format.h>

#include <cstring>
#include <filesystem>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "base/error.h"
#include "base/progress.h"
#include "formats/gguf_deepseek.h"
#include "formats/hf_config.h"
#include "text/gguf_vocab.h"

namespace wels {
namespace {

const std::pair<std::string, DType> kTypes[] = {
    {"f32", DType::kF32},   {"f16", DType::kF16},   {"bf16", DType::kBF16}, {"q8_0", DType::kQ8_0},
    {"q4_0", DType::kQ4_0}, {"q4_1", DType::kQ4_1}, {"q5_0", DType::kQ5_0}, {"q5_1", DType::kQ5_1}};

// The vocabulary in the form of the exporter, by way of the metadata that the text layer writes.
GgufTokenizer gguf_tokenizer(const VocabSource& source, int64_t rows) {
  GgufContent c;
  c.where = source.where;
  append_gguf_vocab(source, rows, c.metadata);
  GgufTokenizer t;
  for (auto& [key, value] : c.metadata) {
    if (key == "tokenizer.ggml.pre") t.pre = std::get<std::string>(value.value);
    if (key == "tokenizer.ggml.tokens") t.tokens = std::get<GgufArray>(value.value).strings;
    if (key == "tokenizer.ggml.merges") t.merges = std::get<GgufArray>(value.value).strings;
    if (key == "tokenizer.ggml.token_type") {
      const std::vector<uint8_t>& bytes = std::get<GgufArray>(value.value).packed;
      t.types.resize(bytes.size() / sizeof(int32_t));
      std::memcpy(t.types.data(), bytes.data(), bytes.size());
    }
  }
  t.bos = source.bos;
  t.eos = source.eos;
  t.pad = source.pad;
  return t;
}

int export_command(const std::string& model, const std::string& out, const std::string& type,
                   bool mtp) {
  std::string folder = resolve_checkpoint(model);
  ModelConfig cfg = load_hf_config(folder);
  SafetensorsReader weights(folder);
  GgufExportOptions options;
  options.include_mtp = mtp;
  for (auto& [name, t] : kTypes) {
    if (name == type) options.dtype = t;
  }
  std::optional<GgufTokenizer> tokenizer;
  if (std::filesystem::exists(folder + "/tokenizer.json"))
    tokenizer = gguf_tokenizer(load_vocab_source(folder), cfg.vocab_size);
  if (tokenizer) tokenizer->chat_template = load_chat_template(folder);
  export_gguf(out, cfg, weights, tokenizer ? &*tokenizer : nullptr, options);
  fmt::print("{}: {}\n", out, human_bytes(static_cast<double>(std::filesystem::file_size(out))));
  return 0;
}

}  // namespace

void add_export(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("export", "write a checkpoint as GGUF, for llama.cpp");
  struct Flags {
    std::string model, out, type = "bf16";
    bool mtp = false;
  };
  auto f = std::make_shared<Flags>();
  sub->add_option("model", f->model, "model folder or run folder")->required();
  sub->add_option("--gguf", f->out, "the file to write")->required();
  sub->add_option("--type", f->type, "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"}))
      ->capture_default_str();
  sub->add_flag("--mtp", f->mtp,
                "with the MTP modules (readers that do not know them refuse the file)");
  sub->callback(
      [f, &run] { run = [f] { return export_command(f->model, f->out, f->type, f->mtp); }; });
}

}  // namespace wels
