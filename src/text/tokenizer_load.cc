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

// tokenizer_config.json names the special tokens: a string, or {"content": string}. A bos that it
// names precedes texts, whatever "add_bos_token" says: V3-0324's and GPT-2's say false, and their
// models were trained with it (V3-0324's chat template writes its own). A GGUF file's false is
// believed: converters name a bos there for models that have none too (Qwen2's).
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
  auto flag = root.find("add_bos_token");
  if (source.bos) {
    source.add_bos = true;
  } else if (flag != root.end() && flag->is_boolean()) {
    source.add_bos = flag->get<bool>();
  } else if (root.contains("bos_token")) {  // null
    source.add_bos = false;
  } else if (root.contains("chat_template") && !root["chat_template"].is_null()) {
    source.add_bos = true;
  }
}

std::string template_of_config(const std::string& path) {
  nlohmann::json root = parse_json(MappedFile(path).text(), path);
  if (!root.is_object() || !root.contains("chat_template")) return "";
  const nlohmann::json& value = root["chat_template"];
  if (value.is_null()) return "";
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

bool begin_as_chats(VocabSource& source) {
  if (source.add_bos) return false;
  source.add_bos = true;
  return true;
}

VocabSource load_vocab_source(const std::string& path) {
  std::string file = is_folder(path) ? path + "/tokenizer.json" : path;
  if (MappedFile(file).text().starts_with("GGUF"))
    return parse_gguf_vocab(GgufReader(file).content());
  VocabSource source = parse_tokenizer_json(MappedFile(file).text(), file);
  size_t slash = file.rfind('/');
  std::string folder = slash == std::string::npos ? "" : file.substr(0, slash + 1);
  std::string config = folder + "tokenizer_config.json";
  if (is_file(config)) read_names(config, source);
  if (is_file(folder + "chat_template.jinja")) begin_as_chats(source);
  return source;
}

Tokenizer Tokenizer::load(const std::string& path) { return Tokenizer(load_vocab_source(path)); }

}  // namespace wels
