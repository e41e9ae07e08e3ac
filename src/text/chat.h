// Chat templates: messages → the text and the tokens that a model was trained to continue. The only
// place that does this, for training, the server and the command line alike.
//
// The DeepSeek releases ship their templates as Jinja programs; here each is a small renderer with
// the same output, oddities included (the first V3 and R1 templates, for instance, close a list of
// tool calls only if there are two or more).
//
// A template's own markers (<｜User｜>, ...) become tokens by name; what users, tools and system
// prompts say is only ever text, so nobody can forge a turn by writing a marker. What the assistant
// said may contain its markers (<think>).
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace wels {

enum class ChatTemplate {
  kDeepSeekV2,  // DeepSeek-LLM, V2 and their coders: turns by name, in plain text
  kDeepSeekV3,  // first release of V3
  kDeepSeekV3_0324,
  kDeepSeekV31,           // also that of models trained by wels
  kDeepSeekV31Release,    // V3.1's own program: no <think> before the </think> of no thought
  kDeepSeekR1First,       // R1 and its distillations in January 2025: the prompt opens no thought
  kDeepSeekR1,            // R1 and its distillations since then
  kDeepSeekR1_0528,       // also the later program of V3-0324: each question asks for its answer
  kDeepSeekR1Qwen,        // R1's Qwen-32B distillation, with llama.cpp's switch for thinking
  kDeepSeekR1QwenThinks,  // the same without the switch, as llama.cpp has it now
  kLlamaCppR1,            // llama.cpp's own for R1
};
// V3.1's turns and calls, whichever of the two.
inline bool is_v31(ChatTemplate t) {
  return t == ChatTemplate::kDeepSeekV31 || t == ChatTemplate::kDeepSeekV31Release;
}

struct ChatTemplateName {
  const char* name;  // as in the fixtures: "deepseek-v3.1", ...
  ChatTemplate value;
};
const std::vector<ChatTemplateName>& chat_template_names();
// Throws Error listing the names if there is no such template.
ChatTemplate chat_template_by_name(std::string_view name);
// The template that a model folder or GGUF file states (text/vocab_source.h, load_chat_template),
// recognised by its marks. Nullopt: it states none, a base model. Throws Error where the template
// is none of ours; warns where the turns are a template's and the calls may not be.
std::optional<ChatTemplate> find_chat_template(const std::string& path);
// kDeepSeekV31 as a Jinja program: the chat_template.jinja of model folders that wels writes.
std::string chat_template_jinja();

struct ToolCall {
  std::string type = "function";
  std::string name;
  std::string arguments;  // JSON text
  std::string id = {};    // as the API gave it; templates do without
};

// A tool that the model may call.
struct ChatTool {
  std::string name, description;
  std::string parameters = "{}";  // JSON schema of the arguments
};

struct ChatMessage {
  std::string role;                    // system, user, assistant or tool
  std::optional<std::string> content;  // may be absent in an assistant's message with tool calls
  std::vector<ToolCall> tool_calls;    // assistant only
  std::string tool_call_id = {};       // tool only: the call that it answers
  bool prefix = false;                 // the last message is the beginning of the answer (V3.1)
  // Of such a beginning: the reasoning before the content, or, where there is no content, the
  // beginning of the reasoning.
  std::optional<std::string> reasoning = std::nullopt;
};

struct ChatOptions {
  bool add_generation_prompt = true;    // end where the assistant's answer begins
  bool continue_final_message = false;  // end right after the content of the last message
  bool thinking = false;                // V3.1, R1Qwen: ask for reasoning before the answer
  std::vector<ChatTool> tools = {};     // described behind the system prompt
};

// A rendered conversation. Markers are tokens by name, own text may contain markers, foreign text
// must not.
struct ChatPart {
  enum Kind { kMarker, kOwn, kForeign } kind;
  std::string text;
};
using ChatText = std::vector<ChatPart>;

// Throws Error("messages[i]", ...) on a role that does not exist or a message without content.
ChatText render_chat(ChatTemplate chat_template, const std::vector<ChatMessage>& messages,
                     const ChatOptions& options);
// The section of the system prompt that describes tools (chat_tools.cc); empty: no tools.
ChatText describe_tools(ChatTemplate chat_template, const std::vector<ChatTool>& tools);
// How an answer writes one call of a tool, in text: what stands before its name, between that and
// its arguments, and behind them.
struct CallForm {
  std::string before_name, before_arguments, after;
};
CallForm call_form(std::optional<ChatTemplate> chat_template);  // nothing: as V3
// A document to be filled in the middle: DeepSeek's markers around what comes before and after.
// Throws Error where the vocabulary has no such tokens.
std::vector<int32_t> fim_to_tokens(std::string_view before, std::string_view after,
                                   const Tokenizer& tokenizer);
// For base models, which know no turns: the texts one after another, a new line between an answer
// and what follows, and the answer continues the last text. Errors as render_chat.
ChatText render_plain_text(const std::vector<ChatMessage>& messages);
std::string chat_to_string(const ChatText& chat);
// What a generation prompt has already begun of the answer: "<think>", "<think>\n" or nothing.
std::string begun_answer(const ChatText& chat);
// Throws Error(where, ...) where the vocabulary lacks a marker of the conversation: as text it
// would mean nothing to a model.
void require_markers(const ChatText& chat, const Tokenizer& tokenizer, const std::string& where);
// The same of all that a question and its answer need, with and without a thought.
void require_markers(ChatTemplate chat_template, const Tokenizer& tokenizer,
                     const std::string& where);
// Token ids. Markers that the vocabulary does not have are written out as text.
std::vector<int32_t> chat_to_tokens(const ChatText& chat, const Tokenizer& tokenizer);

// [{"role", "content", "tool_calls"?: [{"type", "function": {"name", "arguments": object |
// string}}], "prefix"?}, ...], the format of OpenAI's API and of Hugging Face. Throws Error(where,
// ...) on anything else.
std::vector<ChatMessage> parse_chat_messages(std::string_view json, const std::string& where);
// The same format, one message a line; parsing gives the messages back. Texts must be UTF-8.
std::string write_chat_messages(const std::vector<ChatMessage>& messages);

}  // namespace wels
