// What the lines of chat data sets say, whichever of the usual formats they are in; each line is
// looked at on its own:
//
//   Alpaca    {"instruction", "input"?, "output", "system"?, "history"?: [[question, answer], ...]}
//   ShareGPT  {"conversations": [{"from": human | gpt | system | function_call | observation,
//             "value"}], "system"?, "tools"?}
//   OpenAI    {"messages": [{"role", "content", "tool_calls"?}], "tools"?}
//   pairs     {"question", "answer"}
//   text      {"text"}: all of it is learned; "ends": false: a text goes on after it, so no end of
//             sentence is learned
//
// Preferences are one of these without its last answer, or {"prompt": text or messages}, and
// "chosen" and "rejected": a text, a message, or messages of which the last counts.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace wels {

struct ChatRecord {
  std::vector<ChatMessage> messages;  // empty: a text
  std::string text;
  bool ends = true;  // a text: it is followed by its end
  // Of what is asked first (of a text: of all): records with the same question are held out
  // together.
  uint64_t question_hash = 0;
};

// Throws Error(where, what, hint): not such an object, fields missing or of the wrong type, no
// assistant message. "tools" become a system message (describe_tools), before the system's own.
ChatRecord parse_chat_record(std::string_view line, const std::string& where);

struct PreferenceRecord {
  std::vector<ChatMessage> prompt;
  ChatMessage chosen, rejected;
  uint64_t question_hash = 0;
};
// Throws Error likewise, also where both answers are the same.
PreferenceRecord parse_preference_record(std::string_view line, const std::string& where);

}  // namespace wels
