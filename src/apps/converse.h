// A conversation line by line, whoever answers.
#pragma once
#include <functional>
#include <string>

#include "apps/chat_commands.h"

namespace wels {

// Until /bye, the end of the input, or Ctrl-C where nobody sits at a terminal. answer(question)
// shows an answer and keeps both in the conversation; false: Ctrl-C. Its Error ends the turn, not
// the conversation. The exit code: 2 where a turn through a pipe has failed.
int converse(ChatState& state, const std::string& title,
             const std::function<bool(const std::string&)>& answer);

}  // namespace wels
