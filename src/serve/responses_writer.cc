#include <fmt/format.h>

#include "serve/api_error.h"
#include "serve/json_text.h"
#include "serve/responses.h"

namespace wels {
namespace {

std::string usage_text(const Usage& u) {
  return fmt::format(R"({{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{}}},)"
                     R"("output_tokens":{},"output_tokens_details":{{"reasoning_tokens":{}}},)"
                     R"("total_tokens":{}}})",
                     u.prompt, u.cached, u.completion, u.reasoning, u.prompt + u.completion);
}

// The parts of a response: their items as they are sent when they are done.
struct Item {
  enum Kind { kReasoning, kMessage, kCall } kind;
  std::string id, text, call_id, name;

  std::string part() const {
    return kind == kReasoning
               ? R"({"type":"reasoning_text","text":)" + json_string(text) + "}"
               : R"({"type":"output_text","text":)" + json_string(text) + R"(,"annotations":[]})";
  }
  // status: "in_progress" (nothing of it is shown yet), "completed" or "incomplete".
  std::string json(const char* status) const {
    bool done = std::string_view(status) != "in_progress";
    std::string content = done ? "[" + part() + "]" : "[]";
    if (kind == kReasoning)
      return fmt::format(R"({{"type":"reasoning","id":"{}","summary":[],"content":{}}})", id,
                         content);
    if (kind == kMessage) {
      return fmt::format(
          R"({{"type":"message","id":"{}","status":"{}","role":"assistant","content":{}}})", id,
          status, content);
    }
    return fmt::format(
        R"({{"type":"function_call","id":"{}","call_id":{},"name":{},"arguments":{},)"
        R"("status":"{}"}})",
        id, json_string(call_id), json_string(name), json_string(done ? text : ""), status);
  }
};

std::string response_json(const ResponseInfo& info, const ChatRequest& r, const char* status,
                          const std::string& output, const std::string& usage,
                          const std::string& error = "null") {
  bool incomplete = std::string_view(status) == "incomplete";
  std::string out = fmt::format(
      R"({{"id":"resp_{}","object":"response","created_at":{},"status":"{}","error":{},)"
      R"("incomplete_details":{},"instructions":null,"max_output_tokens":{},"model":{},)",
      info.id, info.created, status, error,
      incomplete ? R"({"reason":"max_output_tokens"})" : "null",
      r.options.max_tokens ? std::to_string(*r.options.max_tokens) : "null",
      json_string(info.model));
  return out +
         fmt::format(R"("output":[{}],"parallel_tool_calls":true,"previous_response_id":null,)"
                     R"("store":false,"temperature":{},"text":{{"format":{{"type":"text"}}}},)"
                     R"("tool_choice":"auto","tools":[],"top_p":{},"truncation":"disabled",)"
                     R"("usage":{},"metadata":{{}}}})",
                     output, r.options.temperature, r.options.top_p, usage);
}

const char* status_of(FinishReason f) {
  return f == FinishReason::kInsufficientResource ? "failed"
         : f == FinishReason::kLength             ? "incomplete"
                                                  : "completed";
}
// Of the last item.
const char* item_status(FinishReason f) {
  return f == FinishReason::kStop || f == FinishReason::kToolCalls ? "completed" : "incomplete";
}

std::string error_json(const std::string& message) {
  return R"({"code":"server_error","message":)" + json_string(message) + "}";
}

// "null", or why a response failed without an error of its own.
std::string failure(FinishReason f) {
  return f == FinishReason::kInsufficientResource ? error_json(out_of_time().message()) : "null";
}

class ResponsesWriter : public EventWriter {
 public:
  ResponsesWriter(ResponseInfo info, ChatRequest request)
      : info_(std::move(info)), request_(std::move(request)) {}

  void begin(std::string& out) override {
    for (const char* type : {"response.created", "response.in_progress"})
      event(type, "\"response\":" + response_json(info_, request_, "in_progress", "", "null"), out);
  }

  void write(const std::vector<Delta>& deltas, std::string& out) override {
    for (const Delta& d : deltas) {
      if (d.kind == Delta::kFinish) {
        finish_ = d.finish;
      } else if (d.kind == Delta::kToolName) {
        open({Item::kCall, "fc_" + new_uuid(), "", d.call_id, d.text}, out);
      } else if (!d.text.empty()) {
        text(d, out);
      }
    }
  }

  void end(const Usage& usage, const std::optional<Error>& error, std::string& out) override {
    close(out, error ? "incomplete" : item_status(finish_));
    const char* status = error ? "failed" : status_of(finish_);
    std::string why = error ? error_json(error->what()) : failure(finish_);
    event(std::string("response.") + status,
          "\"response\":" + response_json(info_, request_, status, done_, usage_text(usage), why),
          out);
  }

 private:
  void event(const std::string& type, std::string_view fields, std::string& out) {
    fmt::format_to(std::back_inserter(out),
                   "event: {0}\ndata: {{\"type\":\"{0}\",\"sequence_number\":{1},{2}}}\n\n", type,
                   sequence_++, fields);
  }
  std::string place() const {
    std::string out = fmt::format(R"("item_id":"{}","output_index":{})", item_->id, index_);
    return item_->kind == Item::kCall ? out : out + ",\"content_index\":0";
  }
  void open(Item item, std::string& out) {
    close(out, "completed");
    item_ = std::move(item);
    event("response.output_item.added",
          fmt::format(R"("output_index":{},"item":{})", index_, item_->json("in_progress")), out);
    if (item_->kind != Item::kCall)
      event("response.content_part.added", place() + ",\"part\":" + item_->part(), out);
  }
  const char* stem() const {
    return item_->kind == Item::kReasoning ? "response.reasoning_text"
           : item_->kind == Item::kMessage ? "response.output_text"
                                           : "response.function_call_arguments";
  }
  void text(const Delta& d, std::string& out) {
    Item::Kind kind = d.kind == Delta::kReasoning ? Item::kReasoning
                      : d.kind == Delta::kContent ? Item::kMessage
                                                  : Item::kCall;
    if (!item_ || item_->kind != kind)
      open({kind, (kind == Item::kReasoning ? "rs_" : "msg_") + new_uuid(), "", "", ""}, out);
    item_->text += d.text;
    std::string fields = place() + ",\"delta\":" + json_string(d.text);
    event(std::string(stem()) + ".delta", fields, out);
  }
  void close(std::string& out, const char* status) {
    if (!item_) return;
    const char* field = item_->kind == Item::kCall ? "arguments" : "text";
    event(std::string(stem()) + ".done",
          fmt::format(R"({},"{}":{})", place(), field, json_string(item_->text)), out);
    if (item_->kind != Item::kCall)
      event("response.content_part.done", place() + ",\"part\":" + item_->part(), out);
    event("response.output_item.done",
          fmt::format(R"("output_index":{},"item":{})", index_, item_->json(status)), out);
    done_ += (done_.empty() ? "" : ",") + item_->json(status);
    item_.reset();
    ++index_;
  }

  ResponseInfo info_;
  ChatRequest request_;
  std::optional<Item> item_;
  std::string done_;  // items, as JSON
  int index_ = 0, sequence_ = 0;
  FinishReason finish_ = FinishReason::kStop;
};

}  // namespace

std::string responses_response(const ResponseInfo& info, const ChatRequest& request,
                               const Answer& a, const Usage& usage) {
  std::vector<Item> items;
  if (!a.reasoning.empty())
    items.push_back({Item::kReasoning, "rs_" + new_uuid(), a.reasoning, "", ""});
  if (!a.content.empty()) items.push_back({Item::kMessage, "msg_" + new_uuid(), a.content, "", ""});
  for (const Answer::Call& c : a.calls)
    items.push_back({Item::kCall, "fc_" + new_uuid(), c.arguments, c.id, c.name});
  std::string output;
  for (const Item& item : items) {
    bool last = &item == &items.back();
    output += (output.empty() ? "" : ",") + item.json(last ? item_status(a.finish) : "completed");
  }
  return response_json(info, request, status_of(a.finish), output, usage_text(usage),
                       failure(a.finish));
}

std::unique_ptr<EventWriter> make_responses_writer(ResponseInfo info, ChatRequest request) {
  return std::make_unique<ResponsesWriter>(std::move(info), std::move(request));
}

}  // namespace wels
