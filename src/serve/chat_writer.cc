// DeepSeek's /chat/completions: object chat.completion, and its chunks in the order that the
// service was seen to send them: role first, then reasoning, content and tool calls, at last
// finish_reason with usage, then [DONE].
#include <fmt/format.h>

#include "serve/api_error.h"
#include "serve/json_text.h"
#include "serve/logprob_text.h"
#include "serve/response_writer.h"

namespace wels {
namespace {

std::string call_json(int index, const Answer::Call& c) {
  return fmt::format(
      R"({{"index":{},"id":{},"type":"function","function":{{"name":{},"arguments":{}}}}})", index,
      json_string(c.id), json_string(c.name), json_string(c.arguments));
}

std::string message_json(const Answer& a) {
  // Content is null where there are only calls.
  bool no_content = a.content.empty() && !a.calls.empty();
  std::string out =
      R"({"role":"assistant","content":)" + (no_content ? "null" : json_string(a.content));
  if (!a.reasoning.empty()) out += R"(,"reasoning_content":)" + json_string(a.reasoning);
  if (!a.calls.empty()) {
    out += R"(,"tool_calls":[)";
    for (size_t i = 0; i < a.calls.size(); ++i)
      out += (i > 0 ? "," : "") + call_json(static_cast<int>(i), a.calls[i]);
    out += ']';
  }
  return out + '}';
}

// {"content": [...]} and, of reasoning, {"reasoning_content": [...]}.
std::string logprobs_json(const std::vector<TokenLogprob>& content,
                          const std::vector<TokenLogprob>& reasoning) {
  std::string out = "{\"content\":";
  append_logprobs(out, content);
  if (!reasoning.empty()) {
    out += ",\"reasoning_content\":";
    append_logprobs(out, reasoning);
  }
  return out + '}';
}

class ChatWriter : public EventWriter {
 public:
  ChatWriter(const ResponseInfo& info, bool include_usage) : include_usage_(include_usage) {
    head_ = fmt::format(
        R"(data: {{"id":{},"object":"chat.completion.chunk","created":{},"model":{},)"
        R"("system_fingerprint":{},"choices":[)",
        json_string(info.id), info.created, json_string(info.model), json_string(info.fingerprint));
  }

  void write(const std::vector<Delta>& deltas, std::string& out) override {
    for (const Delta& d : deltas) {
      size_t choice = static_cast<size_t>(d.choice);
      if (choice >= begun_.size()) begun_.resize(choice + 1);
      if (!begun_[choice]) {
        begun_[choice] = true;
        begin_chunk(d.choice, out);
        out += d.kind == Delta::kReasoning
                   ? R"({"role":"assistant","content":null,"reasoning_content":""})"
                   : R"({"role":"assistant","content":""})";
        end_chunk({}, "null", false, out);
        if (d.kind == Delta::kReasoning) thinks_.resize(std::max(thinks_.size(), choice + 1));
        if (d.kind == Delta::kReasoning) thinks_[choice] = true;
      }
      if (d.kind != Delta::kFinish) {
        begin_chunk(d.choice, out);
        append_delta(d, out);
        end_chunk(d.logprobs, "null", false, out, d.kind == Delta::kReasoning);
        continue;
      }
      flush_finish(false, out);
      finish_ = {d.choice, d.finish};
    }
  }

  void end(const Usage& usage, const std::optional<Error>& error, std::string& out) override {
    usage_ = usage_json(usage);
    if (error) {
      out += "data: " + generation_error(*error).response().body + "\n\n";
      return;
    }
    flush_finish(true, out);
    if (include_usage_) out += head_ + "],\"usage\":" + usage_ + "}\n\n";
    out += "data: [DONE]\n\n";
  }

 private:
  bool thinks(int choice) const {
    size_t i = static_cast<size_t>(choice);
    return i < thinks_.size() && thinks_[i];
  }

  void append_delta(const Delta& d, std::string& out) const {
    switch (d.kind) {
      case Delta::kReasoning:
        out += R"({"content":null,"reasoning_content":)";
        append_json_string(out, d.text);
        out += '}';
        break;
      case Delta::kContent:
        out += "{\"content\":";
        append_json_string(out, d.text);
        out += thinks(d.choice) ? R"(,"reasoning_content":null})" : "}";
        break;
      case Delta::kToolName:
        out += "{\"tool_calls\":[" + call_json(d.call, {d.call_id, d.text, ""}) + "]}";
        break;
      default:
        fmt::format_to(std::back_inserter(out),
                       R"({{"tool_calls":[{{"index":{},"function":{{"arguments":)", d.call);
        append_json_string(out, d.text);
        out += "}}]}";
    }
  }

  // Around the delta, a JSON object.
  void begin_chunk(int choice, std::string& out) const {
    out += head_;
    out += "{\"index\":";
    out += fmt::format_int(choice).c_str();
    out += ",\"delta\":";
  }
  void end_chunk(const std::vector<TokenLogprob>& logprobs, std::string_view finish, bool last,
                 std::string& out, bool reasoning = false) const {
    out += ",\"logprobs\":";
    if (logprobs.empty()) {
      out += "null";
    } else {
      out += reasoning ? logprobs_json({}, logprobs) : logprobs_json(logprobs, {});
    }
    out += ",\"finish_reason\":";
    out += finish;
    out += "}]";
    if (include_usage_) {
      out += ",\"usage\":null";
    } else if (last) {
      out += ",\"usage\":" + usage_;
    }
    out += "}\n\n";
  }

  // The last finish waits for the usage.
  void flush_finish(bool last, std::string& out) {
    if (!finish_) return;
    auto [choice, reason] = *std::exchange(finish_, std::nullopt);
    begin_chunk(choice, out);
    out += thinks(choice) ? R"({"content":"","reasoning_content":null})" : R"({"content":""})";
    end_chunk({}, fmt::format("\"{}\"", finish_name(reason)), last, out);
  }

  std::string head_, usage_;
  bool include_usage_;
  std::vector<bool> begun_, thinks_;
  std::optional<std::pair<int, FinishReason>> finish_;
};

}  // namespace

std::string usage_json(const Usage& u) {
  std::string out = fmt::format(R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},)"
                                R"("prompt_tokens_details":{{"cached_tokens":{}}},)",
                                u.prompt, u.completion, u.prompt + u.completion, u.cached);
  if (u.reasoning > 0) {
    out += fmt::format(R"("completion_tokens_details":{{"reasoning_tokens":{}}},)", u.reasoning);
  }
  return out + fmt::format(R"("prompt_cache_hit_tokens":{},"prompt_cache_miss_tokens":{}}})",
                           u.cached, u.prompt - u.cached);
}

std::string chat_response(const ResponseInfo& info, const std::vector<Answer>& answers,
                          const Usage& usage, bool logprobs) {
  std::string out =
      fmt::format(R"({{"id":{},"object":"chat.completion","created":{},"model":{},"choices":[)",
                  json_string(info.id), info.created, json_string(info.model));
  for (size_t i = 0; i < answers.size(); ++i) {
    const Answer& a = answers[i];
    fmt::format_to(std::back_inserter(out),
                   R"({}{{"index":{},"message":{},"logprobs":{},"finish_reason":"{}"}})",
                   i > 0 ? "," : "", i, message_json(a),
                   logprobs ? logprobs_json(a.content_logprobs, a.reasoning_logprobs) : "null",
                   finish_name(a.finish));
  }
  return out + fmt::format(R"(],"usage":{},"system_fingerprint":{}}})", usage_json(usage),
                           json_string(info.fingerprint));
}

std::unique_ptr<EventWriter> make_chat_writer(ResponseInfo info, bool include_usage) {
  return std::make_unique<ChatWriter>(info, include_usage);
}

}  // namespace wels
