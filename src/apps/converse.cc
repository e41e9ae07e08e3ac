#include "apps/converse.h"

#include <fmt/format.h>

#include <cstdio>

#include "apps/line_input.h"
#include "base/error.h"
#include "text/unicode.h"

namespace wels {

int converse(ChatState& state, const std::string& title,
             const std::function<bool(const std::string&)>& answer) {
  LineInput input;
  state.conversing = true;
  if (input.is_terminal())
    fmt::print("{}, template {} (/? for help)\n", title, state.talk.template_name());
  bool failed = false;
  while (!state.leave) {
    try {
      std::string text;
      bool quoted = false;  // then it is no command, however it begins
      LineInput::Got got = read_input(input, text, quoted);
      if (got == LineInput::Got::kEnd) break;
      if (got == LineInput::Got::kInterrupt) fmt::print("\nCtrl-D or /bye leaves\n");
      if (got == LineInput::Got::kInterrupt || text.empty()) continue;
      require_utf8(text, "input");
      if (state.settings.history && text.find('\n') == std::string::npos) input.remember(text);
      if (text[0] == '/' && !quoted) {
        fmt::print("{}", run_command(state, text));
        std::fflush(stdout);
      } else if (!answer(text) && !input.is_terminal()) {
        return 130;
      }
    } catch (const Error& e) {  // ends the turn, not the conversation
      std::fflush(stdout);
      fmt::print(stderr, "error: {}\n", e.what());
      failed = true;
    }
  }
  if (input.is_terminal() && !state.leave) fmt::print("\n");
  return failed && !input.is_terminal() ? 2 : 0;
}

}  // namespace wels
