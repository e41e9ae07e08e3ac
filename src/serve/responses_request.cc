#include <fmt/format.h>

#include "formats/json.h"
#include "serve/api_error.h"
#include "serve/responses.h"

namespace wels {
namespace {

void parse_item(const JsonFields& f, std::vector<ChatMessage>& out) {
  std::string type = f.text("type").value_or("message");
  ChatMessage m;
  if (type == "message") {
    m.role = f.required("role", f.text("role"));
    if (m.role == "developer") m.role = "system";
    if (m.role != "system" && m.role != "user" && m.role != "assistant")
      f.refuse(f.path() / "role", "unknown variant `" + printable(m.role) + "`");
    m.content = message_text(f, "content");
  } else if (type == "function_call") {
    ToolCall call;
    call.name = f.required("name", f.text("name"));
    check_name(call.name);
    call.arguments = f.text("arguments").value_or("");
    // Calls of one turn are one message.
    if (!out.empty() && out.back().role == "assistant") {
      out.back().tool_calls.push_back(std::move(call));
      return;
    }
    m.role = "assistant";
    m.tool_calls.push_back(std::move(call));
  } else if (type == "function_call_output") {
    m.role = "tool";
    m.content = message_text(f, "output");
  } else if (type == "reasoning") {
    return;  // of earlier turns: not shown to the model again
  } else {
    f.refuse(f.path() / "type", "unsupported item `" + printable(type) + "`");
  }
  out.push_back(std::move(m));
}

void parse_tools(const JsonFields& f, ChatRequest& r) {
  f.each("tools", [&](const Json& item, const JsonPath& at) {
    JsonFields t(f.body(), item, at);
    if (t.text("type").value_or("") != "function")
      t.refuse(at, "unsupported tool, expected one of type `function`");
    add_function(t, r);
  });
  const Json* choice = f.any("tool_choice");
  if (!choice) return;
  if (choice->is_string()) {
    r.tool_choice.kind = parse_choice(f, f.path() / "tool_choice", choice->get<std::string>());
  } else {
    JsonFields named(f.body(), *choice, f.path() / "tool_choice");
    r.tool_choice.kind = ToolChoice::kNamed;
    r.tool_choice.name = named.required("name", named.text("name"));
  }
  check_tool_choice(r);
}

void parse_format(const JsonFields& f, ChatRequest& r) {
  auto text = f.object("text");
  auto format = text ? text->object("format") : std::nullopt;
  if (!format) return;
  std::string type = format->required("type", format->text("type"));
  if (type == "json_object") {
    r.format.kind = ResponseFormat::kJsonObject;
    check_json_is_mentioned(r);
  } else if (type == "json_schema") {
    auto schema = format->object("schema");
    if (!schema) format->missing("schema");
    r.format = {ResponseFormat::kJsonSchema, schema->value().dump()};
  } else if (type != "text") {
    format->refuse(
        format->path() / "type",
        fmt::format("unknown variant `{}`, expected one of `text`, `json_object`, `json_schema`",
                    printable(type)));
  }
}

void parse_reasoning(const JsonFields& f, ChatRequest& r) {
  auto reasoning = f.object("reasoning");
  auto effort = reasoning ? reasoning->text("effort") : std::nullopt;
  if (!effort) return;
  if (*effort == "none")
    r.thinking = false;
  else
    r.effort = parse_effort(*reasoning, reasoning->path() / "effort", *effort);
}

}  // namespace

ChatRequest parse_responses_request(std::string_view body) {
  Json json = parse_body(body);
  JsonFields f(body, json);
  ChatRequest r;
  r.model = f.required("model", f.text("model"));
  if (f.any("previous_response_id") || f.any("conversation"))
    throw invalid_request("Nothing is stored here: send the whole conversation as input");
  if (auto instructions = f.text("instructions")) {
    ChatMessage m;
    m.role = "system";
    m.content = *instructions;
    r.messages.push_back(std::move(m));
  }
  const Json* input = f.any("input");
  if (!input) f.missing("input");
  if (input->is_string()) {
    ChatMessage m;
    m.role = "user";
    m.content = input->get<std::string>();
    r.messages.push_back(std::move(m));
  } else {
    if (!input->is_array()) f.wrong_type(*input, JsonPath{{"input"}}, "a string or a sequence");
    f.each("input", [&](const Json& item, const JsonPath& at) {
      parse_item(JsonFields(body, item, at), r.messages);
    });
  }
  if (r.messages.empty()) throw invalid_request("Empty input");
  r.options.max_tokens = f.integer("max_output_tokens");
  parse_heat(f, r.options);
  r.options.stream = f.boolean("stream").value_or(false);
  r.options.user_id = parse_user_id(f);
  parse_tools(f, r);
  parse_format(f, r);
  parse_reasoning(f, r);
  return r;
}

}  // namespace wels
