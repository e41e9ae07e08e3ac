// find_chat_template: which of our renderers a model's Jinja program is. The programs differ
// between releases in what they are called and how they are spaced, so they are known by the marks
// that change what a conversation becomes.
#include "base/error.h"
#include "text/chat.h"
#include "text/vocab_source.h"

namespace wels {

std::optional<ChatTemplate> find_chat_template(const std::string& path) {
  std::string jinja = load_chat_template(path);
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
