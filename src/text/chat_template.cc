// find_chat_template: which of our renderers a model folder's Jinja program is. The programs differ
// between releases in what they are called and how they are spaced, so they are known by the marks
// that change what a conversation becomes.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "formats/json.h"
#include "text/chat.h"

namespace wels {
namespace {

// tokenizer_config.json's: a text, or a list of {"name", "template"} of which "default" counts.
std::string template_of_config(const std::string& path) {
  nlohmann::json root = parse_json(read_file(path), path);
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
              "name the template instead: --template");
}

}  // namespace

std::optional<ChatTemplate> find_chat_template(const std::string& folder) {
  std::string path = folder + "/chat_template.jinja", jinja;
  if (std::filesystem::exists(path)) {
    jinja = read_file(path);
  } else if (path = folder + "/tokenizer_config.json"; std::filesystem::exists(path)) {
    jinja = template_of_config(path);
  }
  if (jinja.empty()) return std::nullopt;
  auto has = [&](std::string_view mark) { return jinja.find(mark) != std::string::npos; };
  // ｜DSML｜: V3.2 and later, whose turns look alike and whose tool calls do not.
  if (!has("<｜User｜>") || !has("<｜Assistant｜>") || has("｜DSML｜")) {
    throw Error(path, "the chat template is none that wels knows",
                "name the one to use: --template, \"none\" to continue the text");
  }
  if (has("flush_tool_outputs")) return ChatTemplate::kLlamaCppR1;
  if (has("is_last_user")) return ChatTemplate::kDeepSeekV31;
  if (has("<｜Assistant｜><think>"))
    return has("enable_thinking") ? ChatTemplate::kDeepSeekR1Qwen : ChatTemplate::kDeepSeekR1;
  return has("</think>") ? ChatTemplate::kDeepSeekV3_0324 : ChatTemplate::kDeepSeekV3;
}

}  // namespace wels
