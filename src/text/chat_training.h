// Conversations as training examples: token ids, and which of them the model is to say.
//
// An answer is learned behind exactly the tokens that ask for it when the model is used: the prompt
// of the last assistant turn is render_chat's own, with its thought begun where the turn has one.
// Earlier turns are what the template shows of them afterwards (most drop their thoughts), and are
// learned where they stand behind a prompt that the template gives; where it shows them in another
// form than it asks for them (R1's, which always begins a thought), they are context only.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/chat.h"
#include "text/tokenizer.h"

namespace wels {

struct TrainingTokens {
  std::vector<int32_t> ids;
  std::vector<uint8_t> learned;  // by id: 1 where the model is to say it, end of sentence included

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  int64_t learned_count() const;
  void append(const std::vector<int32_t>& more, bool learn);
};

// The conversation up to its last assistant message; what follows that is left out. A thought is
// what an assistant's content has before "</think>", with or without "<think>" at its start. A turn
// without one is asked for without thinking, and where the template has no such prompt it learns an
// empty thought first. no template: the texts one after another as render_plain_text shows them to
// base models, the last assistant message is learned.
// Throws Error("messages", ...) where no message is the assistant's, and as render_chat does; Error
// ("tokenizer", ...) where the vocabulary lacks a marker that the conversation needs.
TrainingTokens training_tokens(std::optional<ChatTemplate> chat_template,
                               const std::vector<ChatMessage>& messages,
                               const Tokenizer& tokenizer);

// All of a text, learned, behind the tokenizer's document_begin where there is one and before the
// end-of-sentence token, which there must be (Error). ends: false: the text goes on, its end is not
// there.
TrainingTokens training_tokens(std::string_view text, const Tokenizer& tokenizer, bool ends = true);

// The tokens that ask for the last assistant message, and those that are learned for it: what
// training_tokens joins. For objectives that compare answers.
struct PromptAndAnswer {
  std::vector<int32_t> prompt, answer;
};
PromptAndAnswer prompt_and_answer(std::optional<ChatTemplate> chat_template,
                                  const std::vector<ChatMessage>& messages,
                                  const Tokenizer& tokenizer);

// What a system message says of tools, as DeepSeek-V3.1's model card words it: a heading, and for
// each function its name, description and parameters. tools: JSON text of OpenAI's list [{"type",
// "function": {"name", "description", "parameters"}}] or of the functions themselves. Throws
// Error(where, ...) on anything else.
std::string describe_tools(std::string_view tools, const std::string& where);

}  // namespace wels
