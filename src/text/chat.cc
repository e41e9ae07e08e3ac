#include "text/chat.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"
#include "text/markers.h"

namespace wels {
namespace {

constexpr std::string_view kCut = "";  // no token: text on either side is encoded alone

struct Writer {
  ChatText out;
  size_t content_end = 0;  // parts up to and with the content of the last message rendered

  template <class... Names>
  void marks(Names... names) {
    (out.push_back({ChatPart::kMarker, std::string(names)}), ...);
  }
  void own(std::string text) { out.push_back({ChatPart::kOwn, std::move(text)}); }
  void foreign(std::string text) { out.push_back({ChatPart::kForeign, std::move(text)}); }
  void said(const std::string& text) {
    own(text);
    content_end = out.size();
  }
  void heard(const std::string& text) {
    foreign(text);
    content_end = out.size();
  }
};

// What follows the last (first_only: the first) </think>: reasoning of earlier turns is not shown
// to the model again.
std::string without_thinking(const std::string& content, bool first_only = false) {
  size_t at = first_only ? content.find(kThinkEnd) : content.rfind(kThinkEnd);
  return at == std::string::npos ? content : content.substr(at + kThinkEnd.size());
}

void call_in_json_block(Writer& w, const ToolCall& call) {
  w.marks(kCallBegin);
  w.foreign(call.type);
  w.marks(kToolSep);
  w.foreign(call.name);
  w.own("\n```json\n");
  w.foreign(call.arguments);
  w.own("\n```");
  w.marks(kCallEnd);
}

void system_prompt(Writer& w, ChatTemplate kind, const std::vector<ChatMessage>& messages,
                   const ChatOptions& o, bool joined) {
  std::string prompt;
  bool first = true;
  for (const ChatMessage& m : messages) {
    if (m.role != "system") continue;
    prompt = joined && !first ? prompt + "\n\n" + *m.content : *m.content;
    first = false;
  }
  w.marks(kBosMark);
  if (!prompt.empty()) w.heard(prompt);
  ChatText tools = describe_tools(kind, o.tools);
  if (!prompt.empty() && !tools.empty()) w.own("\n\n");
  w.out.insert(w.out.end(), tools.begin(), tools.end());
}

// The beginning of an answer that was given with its reasoning; how R1 opens it.
void begun_with_reasoning(Writer& w, const ChatMessage& m, const char* opened) {
  w.marks(kThinkBegin);
  w.own(opened + *m.reasoning);
  if (!m.content || m.content->empty()) {
    w.content_end = w.out.size();
    return;
  }
  w.marks(kThinkEnd);
  w.said(*m.content);
}

bool is_r1_qwen(ChatTemplate t) {
  return t == ChatTemplate::kDeepSeekR1Qwen || t == ChatTemplate::kDeepSeekR1QwenThinks;
}

// V3 (both), R1 and its distillations: one program that grew by small changes.
struct Classic {
  ChatTemplate kind;
  Writer& w;
  bool any_call =
      false;  // never reset: a second round of calls begins like the middle of the first
  bool any_output = false;
  bool in_tool = false;

  void calls(const ChatMessage& m) {
    in_tool = false;
    bool always_closed = kind == ChatTemplate::kDeepSeekV3_0324 || is_r1_qwen(kind);
    for (const ToolCall& call : m.tool_calls) {
      bool first = !any_call;
      if (first) {
        w.marks(kAssistantMark);
        if (kind == ChatTemplate::kDeepSeekV3_0324 && m.content) w.said(*m.content);
        w.marks(kCallsBegin);
        any_call = true;
      } else {
        w.own("\n");
      }
      call_in_json_block(w, call);
      if (!first && !always_closed) w.marks(kCallsEnd, kEosMark);
    }
    if (always_closed) w.marks(kCallsEnd, kEosMark);
  }

  void answer(const ChatMessage& m) {
    if (m.prefix && m.reasoning) {
      w.marks(kAssistantMark);
      begun_with_reasoning(w, m, "\n");
      in_tool = false;
      return;
    }
    if (in_tool) {
      w.marks(kOutputsEnd);
      w.said(*m.content);
      in_tool = false;
    } else {
      w.marks(kAssistantMark);
      w.said(kind == ChatTemplate::kDeepSeekV3 ? *m.content : without_thinking(*m.content));
    }
    w.marks(kEosMark);
  }

  void message(const ChatMessage& m) {
    if (m.role == "user") {
      in_tool = false;
      w.marks(kUserMark);
      w.heard(*m.content);
    } else if (m.role == "assistant") {
      bool calling = !m.tool_calls.empty();
      switch (kind) {
        case ChatTemplate::kDeepSeekV3_0324:
          calling ? calls(m) : answer(m);
          break;
        case ChatTemplate::kDeepSeekR1Qwen:
        case ChatTemplate::kDeepSeekR1QwenThinks:
          if (calling) calls(m);
          if (m.content) answer(m);
          break;
        default:  // an answer in words hides the calls
          m.content ? answer(m) : calls(m);
      }
    } else if (m.role == "tool") {
      in_tool = true;
      if (!any_output) {
        w.marks(kOutputsBegin);
        any_output = true;
      } else if (kind != ChatTemplate::kDeepSeekV3_0324) {
        w.own("\n");
      }
      w.marks(kOutputBegin);
      w.heard(*m.content);
      w.marks(kOutputEnd);
    }
  }
};

void render_classic(Writer& w, ChatTemplate kind, const std::vector<ChatMessage>& messages,
                    const ChatOptions& o) {
  system_prompt(w, kind, messages, o, kind == ChatTemplate::kDeepSeekV3_0324);
  Classic classic{kind, w};
  for (const ChatMessage& m : messages) classic.message(m);
  if (classic.in_tool) w.marks(kOutputsEnd);
  if (!o.add_generation_prompt || classic.in_tool) return;
  w.marks(kAssistantMark);
  if (kind == ChatTemplate::kDeepSeekR1 || is_r1_qwen(kind)) {
    w.marks(kThinkBegin);
    w.own("\n");
    if (kind == ChatTemplate::kDeepSeekR1Qwen && !o.thinking) w.marks(kThinkEnd);
  }
}

// R1-0528 and the later V3-0324.
void render_r1_0528(Writer& w, const std::vector<ChatMessage>& messages, const ChatOptions& o) {
  system_prompt(w, ChatTemplate::kDeepSeekR1_0528, messages, o, true);
  bool asked = false, in_tool = false, any_output = false;
  for (const ChatMessage& m : messages) {
    if (m.role == "user") {
      in_tool = false;
      w.marks(kUserMark);
      w.heard(*m.content);
      w.marks(kAssistantMark);
    } else if (m.role == "assistant") {
      if (in_tool) w.marks(kOutputsEnd);
      if (!m.tool_calls.empty()) {
        if (m.content) w.said(without_thinking(*m.content));
        w.marks(kCallsBegin);
        for (const ToolCall& call : m.tool_calls) {
          if (&call != &m.tool_calls.front()) w.own("\n");
          call_in_json_block(w, call);
        }
        w.marks(kCallsEnd, kEosMark);
        any_output = false;
      } else if (m.prefix && m.reasoning) {
        begun_with_reasoning(w, m, "\n");
      } else {
        w.said(without_thinking(*m.content));
        w.marks(kEosMark);
      }
      in_tool = false;
    } else if (m.role == "tool") {
      any_output ? w.own("\n") : w.marks(kOutputsBegin);
      any_output = in_tool = true;
      w.marks(kOutputBegin);
      w.heard(*m.content);
      w.marks(kOutputEnd);
    }
    if (m.role != "system") asked = m.role == "user";
  }
  if (in_tool) w.marks(kOutputsEnd);
  if (o.add_generation_prompt && !asked && !in_tool) w.marks(kAssistantMark);
}

void render_v31(Writer& w, ChatTemplate kind, const std::vector<ChatMessage>& messages,
                const ChatOptions& o) {
  system_prompt(w, kind, messages, o, true);
  bool after_user = false, in_tool = false;
  auto asks = [&](bool thinking) {
    w.marks(kAssistantMark);
    if (thinking || kind == ChatTemplate::kDeepSeekV31) w.marks(kThinkBegin);
    if (!thinking) w.marks(kThinkEnd);
  };
  for (const ChatMessage& m : messages) {
    if (m.role == "user") {
      in_tool = false;
      after_user = true;
      w.marks(kUserMark);
      w.heard(*m.content);
    } else if (m.role == "assistant") {
      bool calling = !m.tool_calls.empty();
      if (m.prefix && m.reasoning && !calling) {
        if (after_user) w.marks(kAssistantMark);
        begun_with_reasoning(w, m, "");
        after_user = in_tool = false;
        continue;
      }
      if (after_user) asks(!calling && m.prefix && o.thinking);
      after_user = false;
      if (calling) {
        if (m.content) w.said(*m.content);
        w.marks(kCallsBegin);
        for (const ToolCall& call : m.tool_calls) {
          w.marks(kCallBegin);
          w.foreign(call.name);
          w.marks(kToolSep);
          w.foreign(call.arguments);
          w.marks(kCallEnd);
        }
        w.marks(kCallsEnd);
      } else {
        w.said(in_tool ? *m.content : without_thinking(*m.content, true));
      }
      in_tool = false;
      w.marks(kEosMark);
    } else if (m.role == "tool") {
      after_user = false;
      in_tool = true;
      w.marks(kOutputBegin);
      w.heard(*m.content);
      w.marks(kOutputEnd);
    }
  }
  if (o.add_generation_prompt && after_user) asks(o.thinking);
}

// V2's program knows no calls and leaves tools' messages out; calls are written as V3 does.
void render_v2(Writer& w, const std::vector<ChatMessage>& messages, const ChatOptions& o) {
  w.marks(kBosMark);
  ChatText tools = describe_tools(ChatTemplate::kDeepSeekV2, o.tools);
  auto system_ends = [&] {
    if (tools.empty()) return;
    w.out.insert(w.out.end(), tools.begin(), tools.end());
    w.own("\n\n");
    tools.clear();
  };
  for (const ChatMessage& m : messages) {
    if (m.role != "system") system_ends();
    if (m.role == "system") {
      w.heard(*m.content);
      w.own("\n\n");
    } else if (m.role == "user") {
      w.own("User: ");
      w.heard(*m.content);
      w.own("\n\n");
    } else if (m.role == "assistant") {
      w.own(std::string(kAssistantName));
      w.marks(kCut);  // where the prompt ended: what was generated keeps its tokens
      w.own(" ");
      if (m.content) w.said(*m.content);
      if (!m.tool_calls.empty()) w.marks(kCallsBegin);
      for (const ToolCall& call : m.tool_calls) call_in_json_block(w, call);
      if (!m.tool_calls.empty()) w.marks(kCallsEnd);
      w.marks(kEosMark);
    }
  }
  system_ends();
  if (o.add_generation_prompt) w.own(std::string(kAssistantName));
}

void render_llama_cpp_r1(Writer& w, const std::vector<ChatMessage>& messages,
                         const ChatOptions& o) {
  system_prompt(w, ChatTemplate::kLlamaCppR1, messages, o, false);
  bool in_outputs = false, any_output = false;
  auto end_outputs = [&] {
    if (in_outputs) w.marks(kOutputsEnd, kEosMark);
    in_outputs = false;
  };
  for (const ChatMessage& m : messages) {
    if (m.role == "user") {
      end_outputs();
      w.marks(kUserMark);
      w.heard(*m.content);
      w.marks(kEosMark);
    } else if (m.role == "assistant") {
      end_outputs();
      w.marks(kAssistantMark);
      if (m.content) {
        w.said(without_thinking(*m.content));
      } else {
        w.marks(kCallsBegin);
        bool first = true;
        for (const ToolCall& call : m.tool_calls) {
          if (!first) w.own("\n");
          first = false;
          call_in_json_block(w, call);
        }
        w.marks(kCallsEnd);
      }
      w.marks(kEosMark);
    } else if (m.role == "tool") {
      in_outputs = true;
      if (!any_output) w.marks(kOutputsBegin);
      any_output = true;
      w.own("\n");
      w.marks(kOutputBegin);
      w.heard(*m.content);
      w.marks(kOutputEnd);
    }
  }
  end_outputs();
  if (o.add_generation_prompt) {
    w.marks(kAssistantMark, kThinkBegin);
    w.own("\n");
  }
}

void check_messages(const std::vector<ChatMessage>& messages) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& m = messages[i];
    std::string where = fmt::format("messages[{}]", i);
    bool known =
        m.role == "system" || m.role == "user" || m.role == "assistant" || m.role == "tool";
    if (!known)
      throw Error(where, fmt::format("role '{}' is unknown", printable(m.role)),
                  "use system, user, assistant or tool");
    bool calling = m.role == "assistant" && !m.tool_calls.empty();
    if (!m.content && !calling)
      throw Error(where, "a " + m.role + " message without content",
                  "give it a text, even an empty one");
    if (!m.tool_calls.empty() && !calling)
      throw Error(where, "tool calls in a " + m.role + " message",
                  "only the assistant calls tools");
  }
}

// JSON as Python's json.dumps writes it ("a": 1, "b": 2), characters unescaped: what the templates'
// tojson gives.
void dump_like_python(const nlohmann::ordered_json& value, std::string& out) {
  const char* comma = "";
  if (value.is_object()) {
    out += '{';
    for (auto it = value.begin(); it != value.end(); ++it) {
      out += comma + nlohmann::ordered_json(it.key()).dump() + ": ";
      dump_like_python(it.value(), out);
      comma = ", ";
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (const auto& item : value) {
      out += comma;
      dump_like_python(item, out);
      comma = ", ";
    }
    out += ']';
  } else {
    out += value.dump();
  }
}

ToolCall parse_call(const nlohmann::ordered_json& json, const std::string& where) {
  ToolCall call;
  if (!json.is_object() || !json.contains("function") || !json["function"].is_object()) {
    throw Error(where, "a tool call without a function object",
                "{\"type\": \"function\", \"function\": {\"name\", \"arguments\"}}");
  }
  const auto& function = json["function"];
  if (!function.contains("name") || !function["name"].is_string())
    throw Error(where, "a tool call without a name", "give function.name");
  call.name = function["name"].get<std::string>();
  if (json.contains("type") && json["type"].is_string())
    call.type = json["type"].get<std::string>();
  if (json.contains("id") && json["id"].is_string()) call.id = json["id"].get<std::string>();
  if (!function.contains("arguments")) return call;
  const auto& arguments = function["arguments"];
  if (arguments.is_string()) {
    call.arguments = arguments.get<std::string>();
  } else {
    dump_like_python(arguments, call.arguments);
  }
  return call;
}

}  // namespace

const std::vector<ChatTemplateName>& chat_template_names() {
  static const std::vector<ChatTemplateName> names = {
      {"deepseek-v2", ChatTemplate::kDeepSeekV2},
      {"deepseek-v3", ChatTemplate::kDeepSeekV3},
      {"deepseek-v3-0324", ChatTemplate::kDeepSeekV3_0324},
      {"deepseek-v3.1", ChatTemplate::kDeepSeekV31},
      {"deepseek-v3.1-release", ChatTemplate::kDeepSeekV31Release},
      {"deepseek-r1-0528", ChatTemplate::kDeepSeekR1_0528},
      {"deepseek-r1-first", ChatTemplate::kDeepSeekR1First},
      {"deepseek-r1-distill-llama-8b", ChatTemplate::kDeepSeekR1},
      {"deepseek-r1-distill-qwen-32b", ChatTemplate::kDeepSeekR1Qwen},
      {"deepseek-r1-distill-qwen-32b-thinks", ChatTemplate::kDeepSeekR1QwenThinks},
      {"llama-cpp-deepseek-r1", ChatTemplate::kLlamaCppR1}};
  return names;
}

ChatTemplate chat_template_by_name(std::string_view name) {
  std::string known;
  for (const ChatTemplateName& t : chat_template_names()) {
    if (name == t.name) return t.value;
    known += (known.empty() ? "" : ", ") + std::string(t.name);
  }
  throw Error("chat template", fmt::format("'{}' is unknown", printable(name)), "one of " + known);
}

ChatText render_chat(ChatTemplate chat_template, const std::vector<ChatMessage>& messages,
                     const ChatOptions& options) {
  check_messages(messages);
  if (options.continue_final_message &&
      (messages.empty() || !messages.back().content || messages.back().role == "system")) {
    throw Error("messages", "there is no last message with content to continue",
                "end with an assistant message");
  }
  ChatOptions o = options;
  if (o.continue_final_message) o.add_generation_prompt = false;
  Writer w;
  switch (chat_template) {
    case ChatTemplate::kDeepSeekV2:
      render_v2(w, messages, o);
      break;
    case ChatTemplate::kDeepSeekV31:
    case ChatTemplate::kDeepSeekV31Release:
      render_v31(w, chat_template, messages, o);
      break;
    case ChatTemplate::kDeepSeekR1_0528:
      render_r1_0528(w, messages, o);
      break;
    case ChatTemplate::kLlamaCppR1:
      render_llama_cpp_r1(w, messages, o);
      break;
    default:
      render_classic(w, chat_template, messages, o);
  }
  if (o.continue_final_message) w.out.resize(w.content_end);
  return std::move(w.out);
}

ChatText render_plain_text(const std::vector<ChatMessage>& messages) {
  check_messages(messages);
  Writer w;
  bool first = true;
  for (const ChatMessage& m : messages) {
    std::string text = m.content.value_or("");
    w.foreign(first || m.role == "assistant" ? text : "\n" + text);
    first = false;
  }
  return std::move(w.out);
}

std::string begun_answer(const ChatText& chat) {
  std::string begun;
  for (size_t i = chat.size(); i-- > 0 && chat[i].kind != ChatPart::kForeign;) {
    if (chat[i].text == kThinkEnd || chat[i].text == kAssistantMark) return "";
    begun = chat[i].text + begun;
    if (chat[i].text == kThinkBegin) return begun;
  }
  return "";
}

std::string chat_to_string(const ChatText& chat) {
  std::string out;
  for (const ChatPart& part : chat) out += part.text;
  return out;
}

void require_markers(const ChatText& chat, const Tokenizer& tokenizer, const std::string& where) {
  for (const ChatPart& part : chat) {
    if (part.kind != ChatPart::kMarker || part.text == kCut || tokenizer.find(part.text)) continue;
    throw Error(where, "has no token " + part.text + ", which the chat template needs",
                "use a model trained on chats or tasks with that token in its vocabulary, or "
                "--template none for a base model");
  }
}

void require_markers(ChatTemplate chat_template, const Tokenizer& tokenizer,
                     const std::string& where) {
  ChatMessage question, answer;
  question.role = "user";
  answer.role = "assistant";
  question.content = answer.content = "";
  for (bool thinking : {false, true}) {
    ChatOptions o;
    o.thinking = thinking;
    require_markers(render_chat(chat_template, {question, answer, question}, o), tokenizer, where);
  }
}

std::vector<int32_t> chat_to_tokens(const ChatText& chat, const Tokenizer& tokenizer) {
  std::vector<int32_t> out;
  // Text between markers is encoded in one go, as merges may reach across the parts.
  std::string run;
  bool foreign = false;
  auto flush = [&] {
    tokenizer.encode(run, foreign ? AddedTokens::kAsText : AddedTokens::kRecognise, out);
    run.clear();
    foreign = false;
  };
  for (const ChatPart& part : chat) {
    std::optional<int32_t> id =
        part.kind == ChatPart::kMarker ? tokenizer.find(part.text) : std::nullopt;
    if (part.kind == ChatPart::kMarker && part.text == kCut) {
      flush();
    } else if (id) {
      flush();
      out.push_back(*id);
    } else {
      run += part.text;
      foreign |= part.kind == ChatPart::kForeign;
    }
  }
  flush();
  return out;
}

std::vector<int32_t> fim_to_tokens(std::string_view before, std::string_view after,
                                   const Tokenizer& tokenizer) {
  std::vector<int32_t> out;
  auto mark = [&](std::string_view name) {
    std::optional<int32_t> id = tokenizer.find(name);
    if (!id)
      throw Error("suffix", "the model has no tokens to fill in the middle",
                  "leave suffix out, or train with wels pretrain --fim");
    out.push_back(*id);
  };
  mark(kFimBegin);
  tokenizer.encode(before, AddedTokens::kAsText, out);
  mark(kFimHole);
  tokenizer.encode(after, AddedTokens::kAsText, out);
  mark(kFimEnd);
  return out;
}

std::vector<ChatMessage> parse_chat_messages(std::string_view json, const std::string& where) {
  auto list = parse_ordered_json(json, where);
  if (!list.is_array())
    throw Error(where, "not a list of messages", "[{\"role\": \"user\", \"content\": \"...\"}]");
  std::vector<ChatMessage> out;
  for (const auto& item : list) {
    std::string at = fmt::format("{}[{}]", where, out.size());
    if (!item.is_object() || !item.contains("role") || !item["role"].is_string())
      throw Error(at, "a message without a role", "give \"role\"");
    ChatMessage m;
    m.role = item["role"].get<std::string>();
    if (item.contains("content") && !item["content"].is_null()) {
      if (!item["content"].is_string())
        throw Error(at, "content is not a text", "only text can be read");
      m.content = item["content"].get<std::string>();
    }
    if (item.contains("tool_call_id") && item["tool_call_id"].is_string())
      m.tool_call_id = item["tool_call_id"].get<std::string>();
    if (item.contains("prefix"))
      m.prefix = item["prefix"].is_boolean() && item["prefix"].get<bool>();
    if (item.contains("tool_calls") && !item["tool_calls"].is_null()) {
      if (!item["tool_calls"].is_array())
        throw Error(at, "tool_calls is not a list", "give a list");
      for (const auto& call : item["tool_calls"]) m.tool_calls.push_back(parse_call(call, at));
    }
    out.push_back(std::move(m));
  }
  return out;
}

std::string write_chat_messages(const std::vector<ChatMessage>& messages) {
  std::string out = "[";
  for (const ChatMessage& m : messages) {
    nlohmann::ordered_json json{{"role", m.role}, {"content", nullptr}};
    if (m.content) json["content"] = *m.content;
    for (const ToolCall& call : m.tool_calls) {
      nlohmann::ordered_json one;
      if (!call.id.empty()) one["id"] = call.id;
      one["type"] = call.type;
      one["function"] = {{"name", call.name}, {"arguments", call.arguments}};
      json["tool_calls"].push_back(std::move(one));
    }
    if (!m.tool_call_id.empty()) json["tool_call_id"] = m.tool_call_id;
    if (m.prefix) json["prefix"] = true;
    out += (out.size() > 1 ? ",\n " : "") + json.dump();
  }
  return out + "]\n";
}

}  // namespace wels
