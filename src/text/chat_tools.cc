// How tools are shown to a model: a section of the system prompt, as DeepSeek-V3.1's model card
// gives it; for the earlier templates the same section with their form of a call. Names,
// descriptions and schemas are foreign text; the markers of the example are the tokens that the
// model is to write.
#include "text/chat.h"

namespace wels {

ChatText describe_tools(ChatTemplate chat_template, const std::vector<ChatTool>& tools) {
  ChatText out;
  auto own = [&](std::string text) { out.push_back({ChatPart::kOwn, std::move(text)}); };
  auto foreign = [&](std::string text) { out.push_back({ChatPart::kForeign, std::move(text)}); };
  auto mark = [&](const char* name) { out.push_back({ChatPart::kMarker, name}); };
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
  mark("<｜tool▁calls▁begin｜>");
  mark("<｜tool▁call▁begin｜>");
  own(v31 ? "tool_call_name" : "function");
  mark("<｜tool▁sep｜>");
  own(v31 ? "tool_call_arguments" : "tool_call_name\n```json\ntool_call_arguments\n```");
  mark("<｜tool▁call▁end｜>");
  own(v31 ? "{additional_tool_calls}" : "\n{additional_tool_calls}");
  mark("<｜tool▁calls▁end｜>");
  own("\n\nWhere:\n- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
      "Schema\n- For multiple tool calls, chain them directly without separators or spaces");
  return out;
}

}  // namespace wels
