#include <fmt/format.h>

#include "formats/json.h"
#include "serve/anthropic.h"
#include "serve/api_error.h"

namespace wels {
namespace {

// Text of a string or of text blocks.
std::string plain_text(const JsonFields& f, const char* key) { return message_text(f, key); }

void add_text(ChatMessage& m, const std::string& text) {
  m.content = m.content.value_or("") + text;
}

// One message may be several of ours: results of tools come before what the user says.
class Reader {
 public:
  explicit Reader(std::vector<ChatMessage>& out) : out_(out) {}

  void message(const JsonFields& f) {
    std::string role = f.required("role", f.text("role"));
    if (role != "user" && role != "assistant") {
      f.refuse(f.path() / "role",
               "unknown variant `" + printable(role) + "`, expected `user` or `assistant`");
    }
    said_ = {};
    said_.role = role;
    const Json* content = f.any("content");
    if (!content) f.missing("content");
    if (content->is_string()) {
      said_.content = content->get<std::string>();
    } else {
      if (!content->is_array())
        f.wrong_type(*content, f.path() / "content", "a string or a sequence");
      f.each("content",
             [&](const Json& item, const JsonPath& at) { block(JsonFields(f.body(), item, at)); });
    }
    if (!said_.content && said_.tool_calls.empty()) {
      if (heard_) return;  // nothing but results
      said_.content = "";
    }
    out_.push_back(std::move(said_));
  }

 private:
  void block(const JsonFields& b) {
    std::string type = b.required("type", b.text("type"));
    if (type == "text") {
      add_text(said_, b.required("text", b.text("text")));
    } else if (type == "tool_use") {
      ToolCall call;
      call.name = b.required("name", b.text("name"));
      check_name(call.name);
      auto input = b.object("input");
      call.arguments = input ? input->value().dump() : "{}";
      said_.tool_calls.push_back(std::move(call));
    } else if (type == "tool_result") {
      ChatMessage result;
      result.role = "tool";
      b.required("tool_use_id", b.text("tool_use_id"));
      result.content = plain_text(b, "content");
      out_.push_back(std::move(result));
      heard_ = true;
    } else if (type != "thinking") {  // of earlier turns: not shown to the model again
      b.refuse(b.path() / "type",
               "unsupported content block `" + printable(type) +
                   "`, expected `text`, `thinking`, `tool_use` or `tool_result`");
    }
  }

  std::vector<ChatMessage>& out_;
  ChatMessage said_;
  bool heard_ = false;
};

void parse_tools(const JsonFields& f, ChatRequest& r) {
  f.each("tools", [&](const Json& item, const JsonPath& at) {
    JsonFields t(f.body(), item, at);
    Json function{{"name", t.required("name", t.text("name"))}};
    function["description"] = t.text("description").value_or("");
    auto schema = t.object("input_schema");
    if (!schema) t.missing("input_schema");
    function["parameters"] = schema->value();
    std::string text = function.dump();
    add_function(JsonFields(text, function), r);
  });
  auto choice = f.object("tool_choice");
  if (!choice) return;
  std::string type = choice->required("type", choice->text("type"));
  if (type == "none") {
    r.tool_choice.kind = ToolChoice::kNone;
  } else if (type == "any") {
    r.tool_choice.kind = ToolChoice::kRequired;
  } else if (type == "tool") {
    r.tool_choice.kind = ToolChoice::kNamed;
    r.tool_choice.name = choice->required("name", choice->text("name"));
  } else if (type != "auto") {
    choice->refuse(choice->path() / "type", "unknown variant `" + printable(type) +
                                                "`, expected one of `none`, `auto`, `any`, `tool`");
  }
  check_tool_choice(r);
}

}  // namespace

ChatRequest parse_messages_request(std::string_view body, bool counting) {
  Json json = parse_body(body);
  JsonFields f(body, json);
  ChatRequest r;
  r.model = f.required("model", f.text("model"));
  if (!f.array("messages")) f.missing("messages");
  if (f.any("system")) {
    ChatMessage system;
    system.role = "system";
    system.content = plain_text(f, "system");
    r.messages.push_back(std::move(system));
  }
  size_t before = r.messages.size();
  f.each("messages", [&](const Json& item, const JsonPath& at) {
    Reader(r.messages).message(JsonFields(body, item, at));
  });
  if (r.messages.size() == before) throw invalid_request("Empty input messages");
  // An answer that is begun is gone on with, as Anthropic's API does.
  ChatMessage& last = r.messages.back();
  last.prefix = last.role == "assistant" && last.tool_calls.empty();
  r.options.max_tokens = f.integer("max_tokens");
  if (!counting && !r.options.max_tokens) f.missing("max_tokens");
  parse_heat(f, r.options);
  r.options.stream = f.boolean("stream").value_or(false);
  r.options.stop = parse_stop(f, "stop_sequences");
  if (auto metadata = f.object("metadata")) r.options.user_id = parse_user_id(*metadata);
  if (auto output = f.object("output_config")) {
    if (auto effort = output->text("effort"))
      r.effort = parse_effort(*output, output->path() / "effort", *effort);
  }
  if (auto thinking = f.object("thinking")) {
    std::string type = thinking->text("type").value_or("disabled");
    if (type != "enabled" && type != "disabled" && type != "adaptive")
      thinking->refuse(thinking->path() / "type",
                       "unknown variant `" + printable(type) +
                           "`, expected `enabled`, `adaptive` or `disabled`");
    r.thinking = type != "disabled";
    if (*r.thinking) r.thinking_budget = thinking->integer("budget_tokens");
    if (r.thinking_budget && *r.thinking_budget < 0)
      throw invalid_request("Invalid thinking budget: it must not be negative");
  }
  parse_tools(f, r);
  return r;
}

}  // namespace wels
