#include "apps/model_folder.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/loaded_model.h"
#include "base/error.h"
#include "base/file.h"
#include "model/checkpoint.h"
#include "text/gguf_vocab.h"
#include "text/vocab_source.h"

namespace wels {

namespace fs = std::filesystem;

std::unique_ptr<Model> load_whole_model(const std::string& path) {
  if (!fs::is_regular_file(path)) return load_model(resolve_whole_model(path), WeightStorage::kF32);
  auto file = std::make_shared<GgufCheckpoint>(path);
  auto model = std::make_unique<Model>(file->config());
  load_weights(*model, file, WeightStorage::kF32);
  return model;
}

std::map<std::string, std::string> files_beside_weights(const std::string& path) {
  std::map<std::string, std::string> files;
  if (fs::is_regular_file(path)) {
    GgufCheckpoint file(path);
    if (!has_vocab(file.content())) return files;
    VocabSource source = parse_gguf_vocab(file.content());
    files["tokenizer.json"] = write_tokenizer_json(source);
    if (std::string text = load_chat_template(path); !text.empty())
      files["chat_template.jinja"] = text;
    if (source.add_bos)
      files["tokenizer_config.json"] = nlohmann::json{{"add_bos_token", *source.add_bos}}.dump();
    return files;
  }
  std::string folder = resolve_checkpoint(path);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "special_tokens_map.json", "generation_config.json"}) {
    if (fs::exists(folder + "/" + name)) files[name] = read_file(folder + "/" + name);
  }
  return files;
}

void write_model_folder(const std::string& folder, Model& model, DType dtype,
                        const std::map<std::string, std::string>& files) {
  std::string out = folder.substr(0, folder.find_last_not_of('/') + 1);
  if (fs::exists(out) && !(fs::is_directory(out) && fs::is_empty(out)))
    throw Error(out, "is there already", "name a new folder");
  if (out.empty()) throw Error("folder", "the name is empty", "name a new folder");
  std::error_code ec;
  std::string tmp = new_folder_beside(out);
  try {
    save_model(tmp, model, dtype, {{"format", "pt"}});
    for (const auto& [name, text] : files) write_file_atomic(tmp + "/" + name, text);
    replace_folder(tmp, out);
  } catch (const Error&) {
    fs::remove_all(tmp, ec);
    throw;
  }
}

}  // namespace wels
