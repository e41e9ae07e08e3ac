// Conversation: the messages of a chat, the tokens that they are for the model, and the file they
// are kept in.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "text/chat.h"

namespace wels {

// Tokens of a context that are kept for the answer: a quarter, or the most it may have where those
// are fewer (0: no such limit); one at least.
int64_t answer_room(int64_t context, int64_t max_tokens);

class Conversation {
 public:
  // No template: a base model, which continues the text.
  Conversation(Tokenizer tokenizer, std::optional<ChatTemplate> chat_template)
      : tokenizer_(std::move(tokenizer)), template_(chat_template) {}
  // With a server, which has tokenizer and template: messages alone.
  Conversation() = default;

  // Null: a server's.
  const Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }
  bool is_base() const { return tokenizer_ && !template_; }
  bool can_switch_thinking() const;
  std::string template_name() const;
  // What the template makes of a system prompt and a question, markers written out.
  std::string example(bool thinking) const;

  std::string system() const;            // empty: none
  void set_system(std::string content);  // empty: none
  void say(std::string role, std::string content);
  void take_back();  // the last message, and what was left out for it is there again
  // Replaces all of it, the system prompt too. Throws Error, and changes nothing, where the
  // template has no place for them.
  void set_messages(std::vector<ChatMessage> messages);
  void clear();  // all but the system prompt
  const std::vector<ChatMessage>& messages() const { return messages_; }

  struct Prompt {
    std::vector<int32_t> tokens;
    std::string begun;     // of the answer, by the template: "<think>\n"
    size_t forgotten = 0;  // messages that had to be left out this time
  };
  // The prompt of the next answer. Where it would be longer than `most` tokens (the context less
  // answer_room), the oldest turns are left out from now on, down to half of that, so that the
  // cache serves some turns again before the next cut. Not with a server (CHECK).
  Prompt prompt(bool thinking, int64_t most);

  // A list of messages as in OpenAI's API. Loading replaces the conversation, the system prompt
  // too; it throws Error and changes nothing if the file is not such a list. Saving is atomic.
  void load(const std::string& path);
  void save(const std::string& path) const;

 private:
  bool has_system() const { return !messages_.empty() && messages_[0].role == "system"; }
  ChatText render(const std::vector<ChatMessage>& messages, bool thinking) const;
  Prompt render_rest(bool thinking) const;
  bool forget_oldest();

  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> template_;
  std::vector<ChatMessage> messages_;  // a system prompt, if any, is the first
  size_t first_ = 0;         // messages before this one are left out, but for the system prompt
  size_t first_before_ = 0;  // when the last message was said
};

}  // namespace wels
