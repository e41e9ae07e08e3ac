// A conversation with a server that speaks OpenAI's API, such as wels serve.
#pragma once
#include <string>

#include "apps/answer_view.h"
#include "apps/chat_commands.h"

namespace wels {

struct ServerFlags {
  std::string url, model, key_env = "OPENAI_API_KEY";
};

class ServerChat {
 public:
  ServerChat(ServerFlags flags, ChatState state);
  ChatState& state() { return state_; }
  // The question's answer, shown as it comes, both kept in the conversation. False: Ctrl-C. Throws
  // Error where the server is not there, refuses, or breaks off; the question is taken back then.
  bool answer(const std::string& question);

  // The body of a request for an answer to the conversation as it is.
  std::string request() const;

 private:
  ServerFlags flags_;
  std::string endpoint_, key_;
  ChatState state_;
};

}  // namespace wels
