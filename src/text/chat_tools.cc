// How tools are shown to a model: a section of the system prompt, as DeepSeek-V3.1's model card
// gives it; for the earlier templates the same section with their form of a call. Names,
// descriptions and schemas are foreign text; the markers of the example are the tokens that the
// model is to write.
#include <fmt/format.h>

#include "text/chat.h"
#include "text/markers.h"

namespace wels {

ChatText describe_tools(ChatTemplate chat_template, const std::vector<ChatTool>& tools) {
  ChatText out;
  auto own = [&](std::string text) { out.push_back({ChatPart::kOwn, std::move(text)}); };
  auto foreign = [&](std::string text) { out.push_back({ChatPart::kForeign, std::move(text)}); };
  auto mark = [&](std::string_view name) { out.push_back({ChatPart::kMarker, std::string(name)}); };
  if (tools.empty()) return out;
  bool v31 = is_v31(chat_template);
  own("## Tools\nYou have access to the following tools:\n");
  for (const ChatTool& tool : tools) {
    own("\n### ");
    foreign(tool.name);
    own("\nDescription: ");
    foreign(tool.description);
    own("\n\nParameters: ");
    foreign(tool.parameters);
    own("\n");
  }
  own("\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n");
  mark(kCallsBegin);
  mark(kCallBegin);
  own(v31 ? "tool_call_name" : "function");
  mark(kToolSep);
  own(v31 ? "tool_call_arguments" : "tool_call_name\n```json\ntool_call_arguments\n```");
  mark(kCallEnd);
  own(v31 ? "{additional_tool_calls}" : "\n{additional_tool_calls}");
  mark(kCallsEnd);
  own("\n\nWhere:\n- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
      "Schema\n- For multiple tool calls, chain them directly without separators or spaces");
  return out;
}

CallForm call_form(std::optional<ChatTemplate> chat_template) {
  std::string begin = fmt::format("{}{}", kCallsBegin, kCallBegin);
  std::string end = fmt::format("{}{}", kCallEnd, kCallsEnd), sep(kToolSep);
  if (chat_template && is_v31(*chat_template)) return {begin, sep, end};
  return {begin + "function" + sep, "\n```json\n", "\n```" + end};
}

}  // namespace wels
