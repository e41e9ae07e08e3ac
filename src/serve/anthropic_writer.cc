#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "serve/anthropic.h"
#include "serve/api_error.h"
#include "serve/json_text.h"

namespace wels {
namespace {

std::string stop_json(FinishReason finish, const std::string& stop_string) {
  const char* reason = finish == FinishReason::kLength      ? "max_tokens"
                       : finish == FinishReason::kToolCalls ? "tool_use"
                       : !stop_string.empty()               ? "stop_sequence"
                                                            : "end_turn";
  return fmt::format(R"("stop_reason":"{}","stop_sequence":{})", reason,
                     stop_string.empty() ? "null" : json_string(stop_string));
}

// Tokens found in the cache are not among the input tokens.
std::string usage_text(const Usage& u) {
  return fmt::format(R"({{"input_tokens":{},"cache_creation_input_tokens":0,)"
                     R"("cache_read_input_tokens":{},"output_tokens":{}}})",
                     u.prompt - u.cached, u.cached, u.completion);
}

// An object, which arguments that were cut short are not.
std::string input_json(const std::string& arguments) {
  auto parsed = nlohmann::ordered_json::parse(arguments, nullptr, false);
  return parsed.is_object() ? arguments : "{}";
}

std::string head(const ResponseInfo& info) {
  return fmt::format(R"({{"id":{},"type":"message","role":"assistant","model":{},)",
                     json_string("msg_" + info.id), json_string(info.model));
}

class MessagesWriter : public EventWriter {
 public:
  MessagesWriter(ResponseInfo info, int64_t prompt) : info_(std::move(info)), prompt_(prompt) {}

  void begin(std::string& out) override {
    Usage known;
    known.prompt = prompt_;
    event("message_start",
          R"("message":)" + head(info_) +
              R"("content":[],"stop_reason":null,"stop_sequence":null,)" + R"("usage":)" +
              usage_text(known) + "}",
          out);
  }

  void write(const std::vector<Delta>& deltas, std::string& out) override {
    for (const Delta& d : deltas) {
      switch (d.kind) {
        case Delta::kReasoning:
          if (d.text.empty()) break;
          open(Delta::kReasoning, R"({"type":"thinking","thinking":"","signature":""})", out);
          delta(R"({"type":"thinking_delta","thinking":)" + json_string(d.text) + "}", out);
          break;
        case Delta::kContent:
          if (d.text.empty()) break;
          open(Delta::kContent, R"({"type":"text","text":""})", out);
          delta(R"({"type":"text_delta","text":)" + json_string(d.text) + "}", out);
          break;
        case Delta::kToolName:
          close(out);
          open(Delta::kToolName,
               fmt::format(R"({{"type":"tool_use","id":{},"name":{},"input":{{}}}})",
                           json_string(d.call_id), json_string(d.text)),
               out);
          break;
        case Delta::kToolArguments:
          delta(R"({"type":"input_json_delta","partial_json":)" + json_string(d.text) + "}", out);
          break;
        case Delta::kFinish:
          out_of_time_ = d.finish == FinishReason::kInsufficientResource;
          stop_ = stop_json(d.finish, d.stop_string);
      }
    }
  }

  void end(const Usage& usage, const std::optional<Error>& error, std::string& out) override {
    close(out);
    if (error || out_of_time_) {
      ApiError e = error ? generation_error(*error) : out_of_time();
      out += "event: error\ndata: " + anthropic_error(e.response().status, e.message()) + "\n\n";
      return;
    }
    event("message_delta", R"("delta":{)" + stop_ + R"(},"usage":)" + usage_text(usage), out);
    event("message_stop", "", out);
  }

  std::string keep_alive() override { return "event: ping\ndata: {\"type\":\"ping\"}\n\n"; }

 private:
  void event(const char* type, std::string_view fields, std::string& out) {
    fmt::format_to(std::back_inserter(out), "event: {0}\ndata: {{\"type\":\"{0}\"{1}{2}}}\n\n",
                   type, fields.empty() ? "" : ",", fields);
  }
  void open(Delta::Kind kind, std::string_view block, std::string& out) {
    if (open_ == kind && kind != Delta::kToolName) return;
    close(out);
    ++index_;
    open_ = kind;
    event("content_block_start", fmt::format(R"("index":{},"content_block":{})", index_, block),
          out);
  }
  void delta(std::string_view json, std::string& out) {
    event("content_block_delta", fmt::format(R"("index":{},"delta":{})", index_, json), out);
  }
  void close(std::string& out) {
    if (open_) event("content_block_stop", fmt::format(R"("index":{})", index_), out);
    open_.reset();
  }

  ResponseInfo info_;
  int64_t prompt_;
  std::optional<Delta::Kind> open_;
  int index_ = -1;
  bool out_of_time_ = false;  // which is no stop_reason
  std::string stop_ = R"("stop_reason":"end_turn","stop_sequence":null)";
};

}  // namespace

std::string messages_response(const ResponseInfo& info, const Answer& a, const Usage& usage) {
  std::string content;
  auto add = [&](const std::string& block) { content += (content.empty() ? "" : ",") + block; };
  if (!a.reasoning.empty())
    add(R"({"type":"thinking","thinking":)" + json_string(a.reasoning) + R"(,"signature":""})");
  if (!a.content.empty()) add(R"({"type":"text","text":)" + json_string(a.content) + "}");
  for (const Answer::Call& c : a.calls)
    add(fmt::format(R"({{"type":"tool_use","id":{},"name":{},"input":{}}})", json_string(c.id),
                    json_string(c.name), input_json(c.arguments)));
  return head(info) + "\"content\":[" + content + "]," + stop_json(a.finish, a.stop_string) +
         ",\"usage\":" + usage_text(usage) + "}";
}

std::unique_ptr<EventWriter> make_messages_writer(ResponseInfo info, int64_t prompt_tokens) {
  return std::make_unique<MessagesWriter>(std::move(info), prompt_tokens);
}

}  // namespace wels
