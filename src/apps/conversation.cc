#include "apps/conversation.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"

namespace wels {

int64_t answer_room(int64_t context, int64_t max_tokens) {
  int64_t quarter = std::max<int64_t>(context / 4, 1);
  return max_tokens > 0 ? std::min(max_tokens, quarter) : quarter;
}

bool Conversation::can_switch_thinking() const {
  return !tokenizer_ || template_ == ChatTemplate::kDeepSeekR1Qwen ||
         (template_ && is_v31(*template_));
}

std::string Conversation::template_name() const {
  if (!tokenizer_) return "the server's";
  for (const ChatTemplateName& t : chat_template_names()) {
    if (template_ == t.value) return t.name;
  }
  return "none";
}

std::string Conversation::example(bool thinking) const {
  if (!tokenizer_) return "";
  ChatMessage system, user;
  system.role = "system";
  system.content = "{system}";
  user.role = "user";
  user.content = "{question}";
  return chat_to_string(render({system, user}, thinking)) + "{answer}";
}

std::string Conversation::system() const { return has_system() ? *messages_[0].content : ""; }

void Conversation::set_system(std::string content) {
  if (has_system()) messages_.erase(messages_.begin());
  first_ = 0;
  if (content.empty()) return;
  ChatMessage m;
  m.role = "system";
  m.content = std::move(content);
  messages_.insert(messages_.begin(), std::move(m));
}

void Conversation::say(std::string role, std::string content) {
  // V2's prompt ends before the space that its template puts in front of an answer.
  if (template_ == ChatTemplate::kDeepSeekV2 && role == "assistant" && content.starts_with(' '))
    content.erase(0, 1);
  first_before_ = first_;
  ChatMessage m;
  m.role = std::move(role);
  m.content = std::move(content);
  messages_.push_back(std::move(m));
}

void Conversation::take_back() {
  messages_.pop_back();
  first_ = std::min(first_, first_before_);
}

void Conversation::clear() {
  messages_.resize(has_system() ? 1 : 0);
  first_ = 0;
}

ChatText Conversation::render(const std::vector<ChatMessage>& messages, bool thinking) const {
  ChatOptions options;
  options.thinking = thinking;
  return template_ ? render_chat(*template_, messages, options) : render_plain_text(messages);
}

Conversation::Prompt Conversation::render_rest(bool thinking) const {
  std::vector<ChatMessage> messages = messages_;
  size_t system = has_system() ? 1 : 0;
  if (first_ > system)
    messages.erase(messages.begin() + static_cast<long>(system),
                   messages.begin() + static_cast<long>(first_));
  ChatText text = render(messages, thinking);
  Prompt p;
  CHECK(tokenizer_.has_value());
  // Templates say themselves what they begin with.
  if (!template_ && tokenizer_->document_begin()) p.tokens.push_back(*tokenizer_->document_begin());
  std::vector<int32_t> tokens = chat_to_tokens(text, *tokenizer_);
  p.tokens.insert(p.tokens.end(), tokens.begin(), tokens.end());
  p.begun = begun_answer(text);
  return p;
}

// The turns up to the next question go; false if only the last question is left.
bool Conversation::forget_oldest() {
  size_t now = std::max<size_t>(first_, has_system() ? 1 : 0);
  for (size_t i = now + 1; i < messages_.size(); ++i) {
    if (messages_[i].role != "user") continue;
    first_ = i;
    return true;
  }
  return false;
}

Conversation::Prompt Conversation::prompt(bool thinking, int64_t most) {
  Prompt p = render_rest(thinking);
  auto longer = [&](int64_t n) { return static_cast<int64_t>(p.tokens.size()) > n; };
  if (!longer(most)) return p;
  size_t before = std::max<size_t>(first_, has_system() ? 1 : 0);
  while (longer(most / 2) && forget_oldest()) p = render_rest(thinking);
  p.forgotten = std::max(first_, before) - before;
  return p;
}

void Conversation::set_messages(std::vector<ChatMessage> messages) {
  if (tokenizer_) render(messages, false);
  messages_ = std::move(messages);
  first_ = 0;
}

void Conversation::load(const std::string& path) {
  std::vector<ChatMessage> messages = parse_chat_messages(MappedFile(path).text(), path);
  try {
    set_messages(std::move(messages));
  } catch (const Error& e) {
    throw Error(path, e.what());
  }
}

void Conversation::save(const std::string& path) const {
  write_file_atomic(path, write_chat_messages(messages_));
}

}  // namespace wels
