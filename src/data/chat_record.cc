#include "data/chat_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "data/hash.h"
#include "formats/json.h"
#include "text/chat_training.h"

namespace wels {
namespace {

using Json = nlohmann::ordered_json;  // keeps the order of a tool call's arguments

constexpr const char* kFormats =
    "a line is {\"messages\"}, {\"conversations\"}, {\"instruction\", \"output\"}, {\"question\", "
    "\"answer\"} or {\"text\"}";

// An object of the line, and where it is, for messages.
struct Record {
  const Json& json;
  const std::string& where;

  bool has(const char* key) const { return json.contains(key) && !json[key].is_null(); }
  std::string text(const char* key) const {
    if (!has(key)) throw Error(where, fmt::format("lacks \"{}\"", key), kFormats);
    if (!json[key].is_string())
      throw Error(where, fmt::format("\"{}\" is not a text", key), "only text can be learned");
    return json[key].get<std::string>();
  }
  std::string text_or_nothing(const char* key) const { return has(key) ? text(key) : ""; }
};

ChatMessage message(const char* role, std::string content) {
  ChatMessage m;
  m.role = role;
  m.content = std::move(content);
  return m;
}

// {"name", "arguments"} or a list of such, as ShareGPT writes calls.
ChatMessage calling(const std::string& value, const std::string& where) {
  Json calls = parse_ordered_json(value, where + ": function_call");
  if (!calls.is_array()) calls = Json::array({calls});
  Json list = Json::array();
  for (const Json& call : calls) list.push_back({{"type", "function"}, {"function", call}});
  Json all = Json::array({{{"role", "assistant"}, {"content", nullptr}, {"tool_calls", list}}});
  return parse_chat_messages(all.dump(), where + ": function_call").front();
}

std::vector<ChatMessage> share_gpt(const Json& turns, const std::string& where) {
  if (!turns.is_array())
    throw Error(where, "\"conversations\" is not a list",
                "[{\"from\": \"human\", \"value\"}, ...]");
  std::vector<ChatMessage> out;
  for (const Json& turn : turns) {
    std::string at = fmt::format("{}: conversations[{}]", where, out.size());
    if (!turn.is_object()) throw Error(at, "is not an object", "{\"from\", \"value\"}");
    Record r{turn, at};
    std::string from = r.text("from"), value = r.text("value");
    if (from == "human" || from == "user") {
      out.push_back(message("user", value));
    } else if (from == "gpt" || from == "assistant") {
      out.push_back(message("assistant", value));
    } else if (from == "system") {
      out.push_back(message("system", value));
    } else if (from == "function_call") {
      out.push_back(calling(value, at));
    } else if (from == "observation" || from == "tool") {
      out.push_back(message("tool", value));
    } else {
      throw Error(at, fmt::format("\"from\" is '{}'", printable(from)),
                  "use human, gpt, system, function_call or observation");
    }
  }
  return out;
}

std::vector<ChatMessage> alpaca(const Record& r, bool with_output) {
  std::vector<ChatMessage> out;
  if (r.has("history")) {
    const Json& history = r.json["history"];
    bool good = history.is_array();
    for (const Json& pair : history) {
      good =
          good && pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string();
      if (!good) break;
      out.push_back(message("user", pair[0].get<std::string>()));
      out.push_back(message("assistant", pair[1].get<std::string>()));
    }
    if (!good)
      throw Error(r.where, "\"history\" is not a list of pairs of texts",
                  "[[\"question\", \"answer\"], ...]");
  }
  std::string input = r.text_or_nothing("input");
  out.push_back(message("user", r.text("instruction") + (input.empty() ? "" : "\n" + input)));
  if (with_output) out.push_back(message("assistant", r.text("output")));
  return out;
}

void put_system_first(std::vector<ChatMessage>& messages, const Record& r) {
  std::string system = r.text_or_nothing("system");
  if (!system.empty()) messages.insert(messages.begin(), message("system", system));
  if (!r.has("tools")) return;
  const Json& tools = r.json["tools"];
  std::string list = tools.is_string() ? tools.get<std::string>() : tools.dump();
  if (list.empty() || list == "[]") return;
  messages.insert(messages.begin(), message("system", describe_tools(list, r.where + ": tools")));
}

uint64_t question_hash(const std::vector<ChatMessage>& messages) {
  auto user = std::find_if(messages.begin(), messages.end(),
                           [](const ChatMessage& m) { return m.role == "user"; });
  return user == messages.end() || !user->content ? hash_bytes(write_chat_messages(messages))
                                                  : hash_bytes(*user->content);
}

Json parse_object(std::string_view line, const std::string& where) {
  Json json = parse_ordered_json(line, where);
  if (!json.is_object()) throw Error(where, "is not a JSON object", kFormats);
  return json;
}

// The conversation of a line in any format but text; nullopt: in none.
std::optional<std::vector<ChatMessage>> conversation(const Record& r, bool with_answer) {
  std::vector<ChatMessage> out;
  if (r.has("messages")) {
    out = parse_chat_messages(r.json["messages"].dump(), r.where + ": messages");
  } else if (r.has("conversations")) {
    out = share_gpt(r.json["conversations"], r.where);
  } else if (r.has("instruction")) {
    out = alpaca(r, with_answer);
  } else if (r.has("question")) {
    out.push_back(message("user", r.text("question")));
    if (with_answer) out.push_back(message("assistant", r.text("answer")));
  } else {
    return std::nullopt;
  }
  put_system_first(out, r);
  return out;
}

struct Answer {
  std::vector<ChatMessage> before;
  ChatMessage last;
};

Answer preferred(const Record& r, const char* key) {
  if (!r.has(key))
    throw Error(r.where, fmt::format("lacks \"{}\"", key),
                "a preference is {\"prompt\", \"chosen\", \"rejected\"}");
  const Json& value = r.json[key];
  std::string at = fmt::format("{}: {}", r.where, key);
  Answer out;
  if (value.is_string()) {
    out.last = message("assistant", value.get<std::string>());
    return out;
  }
  Json list = value.is_array() ? value : Json::array({value});
  bool shared = !list.empty() && list[0].is_object() && list[0].contains("from");
  out.before = shared ? share_gpt(list, at) : parse_chat_messages(list.dump(), at);
  if (out.before.empty() || out.before.back().role != "assistant")
    throw Error(at, "does not end with an assistant message", "give the answer as a text");
  out.last = std::move(out.before.back());
  out.before.pop_back();
  return out;
}

}  // namespace

ChatRecord parse_chat_record(std::string_view line, const std::string& where) {
  Json json = parse_object(line, where);
  Record r{json, where};
  ChatRecord out;
  if (std::optional<std::vector<ChatMessage>> messages = conversation(r, true)) {
    bool answered = std::any_of(messages->begin(), messages->end(),
                                [](const ChatMessage& m) { return m.role == "assistant"; });
    if (!answered)
      throw Error(where, "no message is the assistant's: there is nothing to learn",
                  "leave the line out");
    out.messages = std::move(*messages);
    out.question_hash = question_hash(out.messages);
  } else if (r.has("text")) {
    out.text = r.text("text");
    if (r.has("ends")) {
      if (!json["ends"].is_boolean()) throw Error(where, "\"ends\" is neither true nor false");
      out.ends = json["ends"].get<bool>();
    }
    out.question_hash = hash_bytes(out.text);
  } else {
    throw Error(where, "is in no format that wels knows", kFormats);
  }
  return out;
}

PreferenceRecord parse_preference_record(std::string_view line, const std::string& where) {
  Json json = parse_object(line, where);
  Record r{json, where};
  PreferenceRecord out;
  Answer chosen = preferred(r, "chosen"), rejected = preferred(r, "rejected");
  if (r.has("prompt") && json["prompt"].is_array()) {
    out.prompt = parse_chat_messages(json["prompt"].dump(), where + ": prompt");
    put_system_first(out.prompt, r);
  } else if (r.has("prompt")) {
    out.prompt = {message("user", r.text("prompt"))};
    put_system_first(out.prompt, r);
  } else if (auto messages = conversation(r, false)) {
    out.prompt = std::move(*messages);
  } else {
    out.prompt = chosen.before;
    put_system_first(out.prompt, r);
  }
  if (out.prompt.empty())
    throw Error(where, "lacks a prompt", "a preference is {\"prompt\", \"chosen\", \"rejected\"}");
  out.chosen = std::move(chosen.last);
  out.rejected = std::move(rejected.last);
  if (write_chat_messages({out.chosen}) == write_chat_messages({out.rejected}))
    throw Error(where, "\"chosen\" and \"rejected\" are the same", "leave the line out");
  out.question_hash = question_hash(out.prompt);
  return out;
}

}  // namespace wels
