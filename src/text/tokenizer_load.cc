// load_vocab_source, load_chat_template, Tokenizer::load: finds out what a path holds and reads it.
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "formats/json.h"
#include "text/gguf_vocab.h"
#include "text/tokenizer.h"

namespace wels {
namespace {

bool is_folder(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}
bool is_file(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

// tokenizer_config.json names the special tokens: a string, or {"content": string}.
void read_names(const std::string& path, VocabSource& source) {
  nlohmann::json root = parse_json(MappedFile(path).text(), path);
  if (!root.is_object()) throw Error(path, "not a JSON object", "remove it or fetch it again");
  auto read = [&](const char* key, std::optional<int32_t>& id) {
    auto it = root.find(key);
    if (it == root.end()) return;
    const nlohmann::json* value = &*it;
    if (value->is_object() && value->contains("content")) value = &(*value)["content"];
    if (!value->is_string()) return;
    for (const AddedToken& token : source.added) {
      if (token.content == value->get_ref<const std::string&>()) id = token.id;
    }
  };
  read("bos_token", source.bos);
  read("eos_token", source.eos);
  read("pad_token", source.pad);
}

std::string template_of_config(const std::string& path) {
  nlohmann::json root = parse_json(MappedFile(path).text(), path);
  if (!root.is_object() || !root.contains("chat_template")) return "";
  const nlohmann::json& value = root["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) {
    for (const nlohmann::json& item : value) {
      if (item.is_object() && item.value("name", nlohmann::json()) == "default" &&
          item.contains("template") && item["template"].is_string())
        return item["template"].get<std::string>();
    }
  }
  throw Error(path, "chat_template is neither a text nor a list with a default",
              "fetch the file again");
}

}  // namespace

std::string load_chat_template(const std::string& path) {
  if (is_folder(path)) {
    std::string jinja = path + "/chat_template.jinja", config = path + "/tokenizer_config.json";
    if (is_file(jinja)) return read_file(jinja);
    return is_file(config) ? template_of_config(config) : "";
  }
  GgufReader gguf(path);
  return gguf->has("tokenizer.chat_template") ? gguf->text("tokenizer.chat_template") : "";
}

bool load_add_bos(const std::string& path) {
  if (is_folder(path)) {
    std::string config = path + "/tokenizer_config.json";
    if (!is_file(config)) return false;
    nlohmann::json j = parse_json(MappedFile(config).text(), config);
    return j.is_object() && j.contains("add_bos_token") && j["add_bos_token"] == true;
  }
  GgufReader gguf(path);
  constexpr const char* kKey = "tokenizer.ggml.add_bos_token";
  return gguf->has(kKey) && gguf->boolean(kKey);
}

VocabSource load_vocab_source(const std::string& path) {
  std::string file = is_folder(path) ? path + "/tokenizer.json" : path;
  if (MappedFile(file).text().starts_with("GGUF"))
    return parse_gguf_vocab(GgufReader(file).content());
  VocabSource source = parse_tokenizer_json(MappedFile(file).text(), file);
  size_t slash = file.rfind('/');
  std::string config =
      (slash == std::string::npos ? "" : file.substr(0, slash + 1)) + "tokenizer_config.json";
  if (is_file(config)) read_names(config, source);
  return source;
}

Tokenizer Tokenizer::load(const std::string& path) { return Tokenizer(load_vocab_source(path)); }

}  // namespace wels
