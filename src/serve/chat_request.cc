#include "serve/chat_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "formats/json.h"
#include "serve/api_error.h"

namespace wels {
namespace {

constexpr size_t kMostStops = 16, kMostTools = 128, kLongestUser = 512;

std::unordered_map<int32_t, float> parse_logit_bias(const JsonFields& f) {
  std::unordered_map<int32_t, float> out;
  auto bias = f.object("logit_bias");
  if (!bias) return out;
  for (const auto& [key, value] : bias->value().items()) {
    bool digits =
        !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!digits)
      throw invalid_request("Invalid logit_bias: '" + printable(key) + "' is no token id");
    if (!value.is_number()) bias->wrong_type(value, bias->path() / key, "f64");
    double b = value.get<double>();
    check_range("logit_bias", b, -100, 100);
    // -100 means never, as OpenAI's documentation has it.
    out[std::stoi(key)] = b <= -100 ? -1e30f : static_cast<float>(b);
  }
  return out;
}

ToolCall parse_tool_call(const JsonFields& f) {
  ToolCall call;
  auto function = f.object("function");
  if (!function) f.missing("function");
  call.name = function->required("name", function->text("name"));
  check_name(call.name);
  call.arguments = function->text("arguments").value_or("");
  return call;
}

ChatMessage parse_message(const JsonFields& f, bool last, bool beta) {
  ChatMessage m;
  m.role = f.required("role", f.text("role"));
  if (m.role == "developer") m.role = "system";
  bool known = m.role == "system" || m.role == "user" || m.role == "assistant" || m.role == "tool";
  if (!known) {
    f.refuse(
        f.path() / "role",
        fmt::format("unknown variant `{}`, expected one of `system`, `user`, `assistant`, `tool`",
                    printable(m.role)));
  }
  if (f.any("content")) m.content = message_text(f, "content");
  if (m.role == "assistant") {
    f.each("tool_calls", [&](const Json& item, const JsonPath& at) {
      m.tool_calls.push_back(parse_tool_call(JsonFields(f.body(), item, at)));
    });
    if (beta && f.boolean("prefix").value_or(false)) {
      if (!last) f.refuse(f.path(), "only the last message can be a prefix");
      m.prefix = true;
      if (f.any("reasoning_content")) m.reasoning = f.text("reasoning_content");
    }
  }
  if (m.role == "tool") f.required("tool_call_id", f.text("tool_call_id"));
  if (!m.content && (m.role != "assistant" || m.prefix)) {
    if (m.role != "assistant") f.missing("content");
    m.content = "";
  }
  if (!m.content && m.tool_calls.empty()) m.content = "";
  return m;
}

ToolChoice parse_tool_choice(const JsonFields& f) {
  const Json* v = f.any("tool_choice");
  if (!v) return {};
  JsonPath at = f.path() / "tool_choice";
  if (v->is_string()) return {parse_choice(f, at, v->get<std::string>()), ""};
  JsonFields named(f.body(), *v, at);
  auto function = named.object("function");
  if (!function) named.missing("function");
  return {ToolChoice::kNamed, function->required("name", function->text("name"))};
}

ResponseFormat parse_format(const JsonFields& f) {
  ResponseFormat format;
  auto o = f.object("response_format");
  if (!o) return format;
  std::string type = o->required("type", o->text("type"));
  if (type == "text") return format;
  if (type == "json_object") {
    format.kind = ResponseFormat::kJsonObject;
  } else if (type == "json_schema") {
    auto named = o->object("json_schema");
    if (!named) o->missing("json_schema");
    auto schema = named->object("schema");
    if (!schema) named->missing("schema");
    format.kind = ResponseFormat::kJsonSchema;
    format.schema = schema->value().dump();
  } else {
    o->refuse(
        o->path() / "type",
        fmt::format("unknown variant `{}`, expected one of `text`, `json_object`, `json_schema`",
                    printable(type)));
  }
  return format;
}

void parse_thinking(const JsonFields& f, ChatRequest& r) {
  if (auto effort = f.text("reasoning_effort"))
    r.effort = parse_effort(f, f.path() / "reasoning_effort", *effort);
  if (auto t = f.object("thinking")) {
    std::string type = t->required("type", t->text("type"));
    if (type != "enabled" && type != "disabled")
      t->refuse(t->path() / "type",
                "unknown variant `" + printable(type) + "`, expected `enabled` or `disabled`");
    r.thinking = type == "enabled";
    r.thinking_budget = t->integer("budget_tokens");
  }
  if (auto budget = f.integer("thinking_budget")) r.thinking_budget = budget;
  if (r.thinking_budget && *r.thinking_budget < 0)
    throw invalid_request("Invalid thinking budget: it must not be negative");
}

int parse_top_logprobs(const JsonFields& f) {
  bool wanted = f.boolean("logprobs").value_or(false);
  auto top = f.integer("top_logprobs");
  if (top && !wanted)
    throw invalid_request("Invalid top_logprobs value: logprobs must be true where it is given");
  if (top) check_range("top_logprobs", static_cast<double>(*top), 0, 20);
  return wanted ? static_cast<int>(top.value_or(0)) : -1;
}

}  // namespace

void check_name(const std::string& name) {
  bool good = !name.empty() && name.size() <= 64 &&
              std::all_of(name.begin(), name.end(),
                          [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; });
  if (!good) {
    throw invalid_request("Invalid function name '" + printable(name) +
                          "': expected a string that matches the pattern ^[a-zA-Z0-9_-]{1,64}$");
  }
}

ToolChoice::Kind parse_choice(const JsonFields& f, const JsonPath& at, const std::string& name) {
  if (name == "none") return ToolChoice::kNone;
  if (name == "auto") return ToolChoice::kAuto;
  if (name == "required") return ToolChoice::kRequired;
  f.refuse(at,
           "unknown variant `" + printable(name) + "`, expected one of `none`, `auto`, `required`");
}

void check_tool_choice(const ChatRequest& r) {
  const ToolChoice& choice = r.tool_choice;
  if (choice.kind == ToolChoice::kRequired && r.tools.empty())
    throw invalid_request("Invalid tool_choice: a call is required without tools");
  if (choice.kind == ToolChoice::kNamed &&
      std::none_of(r.tools.begin(), r.tools.end(),
                   [&](const ChatTool& t) { return t.name == choice.name; }))
    throw invalid_request("Invalid tool_choice: no tool '" + printable(choice.name) + "'");
}

std::vector<std::string> parse_stop(const JsonFields& f, const char* key) {
  const Json* v = f.any(key);
  if (!v) return {};
  if (v->is_string()) return {v->get<std::string>()};
  std::vector<std::string> out;
  f.each(key, [&](const Json& item, const JsonPath& at) {
    if (!item.is_string()) f.wrong_type(item, at, "a string");
    out.push_back(item.get<std::string>());
  });
  if (out.size() > kMostStops) {
    throw invalid_request(fmt::format("Invalid {}: at most {} strings are allowed, got {}", key,
                                      kMostStops, out.size()));
  }
  return out;
}

void parse_heat(const JsonFields& f, GenerationOptions& o) {
  o.temperature = f.number("temperature").value_or(1);
  check_range("temperature", o.temperature, 0, 2);
  o.top_p = f.number("top_p").value_or(1);
  check_range("top_p", o.top_p, 0, 1);
}

// DeepSeek asks for the word, so that a model is not left to write white space for ever.
void check_json_is_mentioned(const ChatRequest& r) {
  for (const ChatMessage& m : r.messages) {
    std::string text = m.content.value_or("");
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    if (text.find("json") != std::string::npos) return;
  }
  throw invalid_request(
      "Prompt must contain the word 'json' in some form to use 'response_format' of type "
      "'json_object'.");
}

// OpenAI's names as DeepSeek takes them.
ReasoningEffort parse_effort(const JsonFields& f, const JsonPath& at, const std::string& name) {
  for (const char* low : {"minimal", "low"}) {
    if (name == low) return ReasoningEffort::kLow;
  }
  for (const char* high : {"medium", "high", "xhigh"}) {
    if (name == high) return ReasoningEffort::kHigh;
  }
  for (const char* most : {"max", "ultra"}) {
    if (name == most) return ReasoningEffort::kMax;
  }
  f.refuse(at, "unknown variant `" + printable(name) + "`, expected one of `low`, `high`, `max`");
}

void check_range(const char* name, double value, double least, double most) {
  if (value >= least && value <= most) return;
  throw invalid_request(
      fmt::format("Invalid {0} value, the valid range of {0} is [{1}, {2}]", name, least, most));
}

std::string message_text(const JsonFields& f, const char* key) {
  const Json* v = f.any(key);
  if (!v) return "";
  if (v->is_string()) return v->get<std::string>();
  std::string out;
  if (!v->is_array()) f.wrong_type(*v, f.path() / key, "a string or a sequence");
  f.each(key, [&](const Json& item, const JsonPath& at) {
    JsonFields part(f.body(), item, at);
    std::string type = part.required("type", part.text("type"));
    if (type != "text" && type != "input_text" && type != "output_text")
      part.refuse(at / "type", "unknown variant `" + printable(type) + "`, expected `text`");
    out += part.required("text", part.text("text"));
  });
  return out;
}

namespace {

void check_strict_schema(const std::string& name, const Json& schema, const std::string& at) {
  auto wrong = [&](const char* what) {
    return invalid_request(
        fmt::format("Invalid schema of strict function '{}': {} {}", name, printable(at), what));
  };
  if (schema.is_array()) {
    for (const Json& s : schema) check_strict_schema(name, s, at);
  }
  if (!schema.is_object()) return;
  if (auto p = schema.find("properties"); p != schema.end() && p->is_object()) {
    std::set<std::string> required;
    if (auto list = schema.find("required"); list != schema.end() && list->is_array()) {
      for (const Json& name : *list) {
        if (name.is_string()) required.insert(name.get<std::string>());
      }
    }
    for (const auto& [key, value] : p->items()) {
      if (!required.contains(key)) throw wrong("must list all its properties as required");
      check_strict_schema(name, value, at + "." + key);
    }
    auto more = schema.find("additionalProperties");
    if (more != schema.end() && *more != false) throw wrong("allows additionalProperties");
  }
  for (const char* key : {"items", "anyOf", "$defs", "definitions"}) {
    auto below = schema.find(key);
    if (below == schema.end()) continue;
    if (below->is_object() && key[0] != 'i') {
      for (const auto& [n, value] : below->items()) check_strict_schema(name, value, at + "." + n);
    } else {
      check_strict_schema(name, *below, at + "." + key);
    }
  }
}

}  // namespace

void add_function(const JsonFields& function, ChatRequest& r) {
  ChatTool tool;
  tool.name = function.required("name", function.text("name"));
  check_name(tool.name);
  tool.description = function.text("description").value_or("");
  if (auto parameters = function.object("parameters")) tool.parameters = parameters->value().dump();
  bool strict = function.boolean("strict").value_or(false);
  if (strict)
    check_strict_schema(tool.name, parse_ordered_json(tool.parameters, "parameters"), "parameters");
  if (!r.tools.empty() && strict != r.strict_tools)
    throw invalid_request("Invalid tools: all functions must be strict, or none");
  r.strict_tools = strict;
  r.tools.push_back(std::move(tool));
  if (r.tools.size() > kMostTools)
    throw invalid_request(fmt::format("Invalid tools: at most {} are allowed", kMostTools));
}

std::string parse_user_id(const JsonFields& f) {
  std::string id = f.text("user_id").value_or("");
  if (id.size() > kLongestUser) {
    throw invalid_request(
        fmt::format("Invalid 'user_id': string too long. Expected a string with maximum length {}, "
                    "but got a string with length {} instead",
                    kLongestUser, id.size()));
  }
  return id;
}

GenerationOptions parse_options(const JsonFields& f) {
  GenerationOptions o;
  o.max_tokens = f.integer("max_completion_tokens");
  if (auto old = f.integer("max_tokens")) o.max_tokens = old;
  auto number = [&](const char* name, double& value, double least, double most) {
    if (auto v = f.number(name)) value = *v;
    check_range(name, value, least, most);
  };
  parse_heat(f, o);
  number("presence_penalty", o.presence_penalty, -2, 2);
  number("frequency_penalty", o.frequency_penalty, -2, 2);
  number("min_p", o.min_p, 0, 0.999);
  number("typical_p", o.typical_p, 0, 1);
  number("repetition_penalty", o.repetition_penalty, 0.01, 100);
  o.top_k = f.integer("top_k").value_or(0);
  if (o.top_k < 0) o.top_k = 0;  // -1: off, as other servers have it
  o.top_k = std::min<int64_t>(o.top_k, INT32_MAX);
  o.stop = parse_stop(f, "stop");
  o.grammar = f.text("grammar").value_or("");
  if (auto seed = f.integer("seed")) o.seed = static_cast<uint64_t>(*seed);
  o.n = f.integer("n").value_or(1);
  check_range("n", static_cast<double>(o.n), 1, 128);
  o.stream = f.boolean("stream").value_or(false);
  if (auto so = f.object("stream_options")) {
    if (!o.stream) throw invalid_request("stream_options should be set along with stream = true");
    o.include_usage = so->boolean("include_usage").value_or(false);
  }
  o.logit_bias = parse_logit_bias(f);
  o.user_id = parse_user_id(f);
  return o;
}

ChatRequest parse_chat_request(std::string_view body, bool beta) {
  Json json = parse_body(body);
  JsonFields f(body, json);
  ChatRequest r;
  const Json* messages = f.array("messages");
  if (!messages) f.missing("messages");
  r.model = f.required("model", f.text("model"));
  f.each("messages", [&](const Json& item, const JsonPath& at) {
    JsonFields message(body, item, at);
    r.messages.push_back(parse_message(message, r.messages.size() + 1 == messages->size(), beta));
  });
  if (r.messages.empty()) throw invalid_request("Empty input messages");
  r.options = parse_options(f);
  r.options.top_logprobs = parse_top_logprobs(f);
  f.each("tools", [&](const Json& item, const JsonPath& at) {
    JsonFields tool(body, item, at);
    std::string type = tool.required("type", tool.text("type"));
    if (type != "function")
      tool.refuse(at / "type", "unknown variant `" + printable(type) + "`, expected `function`");
    auto function = tool.object("function");
    if (!function) tool.missing("function");
    add_function(*function, r);
  });
  r.tool_choice = parse_tool_choice(f);
  check_tool_choice(r);
  r.format = parse_format(f);
  if (!r.options.grammar.empty() && r.format.kind != ResponseFormat::kText)
    throw invalid_request("Invalid grammar: it can't be set along with response_format");
  auto choice = r.tool_choice.kind;
  if (!r.options.grammar.empty() && choice != ToolChoice::kNone &&
      (choice != ToolChoice::kAuto || r.strict_tools))
    throw invalid_request(
        "Invalid grammar: it can't be set along with calls held to their schemas");
  parse_thinking(f, r);
  r.inside = f.boolean("inside").value_or(false);
  if (r.format.kind == ResponseFormat::kJsonObject) check_json_is_mentioned(r);
  return r;
}

namespace {

std::variant<std::string, std::vector<int32_t>> parse_prompt(const JsonFields& f, const Json& v,
                                                             const JsonPath& at) {
  if (v.is_string()) return v.get<std::string>();
  if (!v.is_array()) f.wrong_type(v, at, "a string or a sequence of token ids");
  std::vector<int32_t> ids;
  for (size_t i = 0; i < v.size(); ++i) {
    bool id = v[i].is_number_unsigned() && v[i].get<uint64_t>() <= INT32_MAX;
    if (!id) f.wrong_type(v[i], at / i, "a token id");
    ids.push_back(v[i].get<int32_t>());
  }
  return ids;
}

// A text or token ids, or a list of either.
std::vector<std::variant<std::string, std::vector<int32_t>>> parse_prompts(const JsonFields& f,
                                                                           const char* key) {
  std::vector<std::variant<std::string, std::vector<int32_t>>> out;
  const Json* prompt = f.any(key);
  if (!prompt) f.missing(key);
  bool list = prompt->is_array() && !(!prompt->empty() && (*prompt)[0].is_number());
  if (!list) {
    out.push_back(parse_prompt(f, *prompt, JsonPath{{key}}));
  } else {
    f.each(key,
           [&](const Json& item, const JsonPath& at) { out.push_back(parse_prompt(f, item, at)); });
  }
  if (out.empty()) throw invalid_request(fmt::format("Empty {}", key));
  if (out.size() > 2048)
    throw invalid_request(fmt::format("Invalid {}: at most 2048 at once", key));
  return out;
}

}  // namespace

CompletionRequest parse_completion_request(std::string_view body) {
  Json json = parse_body(body);
  JsonFields f(body, json);
  CompletionRequest r;
  r.prompts = parse_prompts(f, "prompt");
  r.model = f.required("model", f.text("model"));
  r.options = parse_options(f);
  if (auto logprobs = f.any("logprobs"); logprobs && !logprobs->is_boolean()) {
    auto top = f.integer("logprobs");
    check_range("logprobs", static_cast<double>(*top), 0, 20);
    r.options.top_logprobs = static_cast<int>(*top);
  } else if (logprobs && logprobs->get<bool>()) {
    r.options.top_logprobs = 0;
  }
  if (f.any("suffix")) r.suffix = f.text("suffix");
  r.echo = f.boolean("echo").value_or(false);
  if (r.echo && r.options.stream && r.options.top_logprobs >= 0)
    throw invalid_request("Invalid echo: with logprobs it can't be streamed");
  if (r.suffix && r.echo) throw invalid_request("Invalid echo: it can't be set along with suffix");
  if (f.any("suffix") && r.prompts.size() > 1)
    throw invalid_request("Invalid suffix: it needs a single prompt");
  return r;
}

EmbeddingRequest parse_embedding_request(std::string_view body) {
  Json json = parse_body(body);
  JsonFields f(body, json);
  EmbeddingRequest r;
  r.inputs = parse_prompts(f, "input");
  r.model = f.required("model", f.text("model"));
  std::string format = f.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    throw invalid_request("Invalid encoding_format: expected float or base64");
  r.base64 = format == "base64";
  if (f.any("dimensions")) throw invalid_request("Invalid dimensions: they can't be chosen");
  r.user_id = parse_user_id(f);
  return r;
}

}  // namespace wels
