#include "apps/server_chat.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/signal.h"
#include "distill/http_client.h"
#include "formats/json.h"
#include "text/event_stream.h"
#include "text/markers.h"
#include "text/stream_printer.h"

namespace wels {
namespace {

using nlohmann::ordered_json;

// What came of an answer.
struct Stream {
  std::string reasoning, content, error;
  int64_t prompt = 0, cached = 0, tokens = 0;
  double first_s = 0;
  bool done = false;
};

// The delta's text of this field, shown and kept.
void take_text(const nlohmann::json& delta, const char* field, std::string& kept,
               const std::function<void(std::string_view)>& show) {
  auto it = delta.find(field);
  if (it == delta.end() || !it->is_string()) return;
  const auto& text = it->get_ref<const std::string&>();
  kept += text;
  if (!text.empty()) show(text);
}

void take_event(Stream& s, std::string_view data, AnswerView& view) {
  if (data == "[DONE]") return void(s.done = true);
  nlohmann::json j = nlohmann::json::parse(data, nullptr, false);
  if (!j.is_object()) throw Error("the server", "sent an event that is no JSON object");
  if (j.contains("error") && !j["error"].is_null()) s.error = j["error"].dump();
  if (j.contains("usage") && j["usage"].is_object()) {
    auto count = [&](const char* name) {
      auto it = j["usage"].find(name);
      return it != j["usage"].end() && it->is_number_integer() ? it->get<int64_t>() : int64_t{0};
    };
    s.prompt = count("prompt_tokens");
    s.cached = count("prompt_cache_hit_tokens");
    s.tokens = count("completion_tokens");
  }
  if (!j.contains("choices") || !j["choices"].is_array() || j["choices"].empty()) return;
  const nlohmann::json& choice = j["choices"][0];
  if (!choice.is_object() || !choice.contains("delta") || !choice["delta"].is_object()) return;
  const nlohmann::json& delta = choice["delta"];
  take_text(delta, "reasoning_content", s.reasoning, [&](std::string_view text) {
    if (s.reasoning.size() == text.size()) view.push(kThinkBegin);
    view.push(text);
  });
  take_text(delta, "content", s.content, [&](std::string_view text) {
    if (view.thinking()) view.push(kThinkEnd);
    view.push(text);
  });
}

// What a refusal says, as people can read it.
std::string reason(const std::string& body) {
  nlohmann::json j = nlohmann::json::parse(body, nullptr, false);
  if (j.is_object() && j.contains("error") && j["error"].is_object() &&
      j["error"].contains("message") && j["error"]["message"].is_string())
    return for_terminal(j["error"]["message"].get_ref<const std::string&>());
  return for_terminal(std::string_view(body).substr(0, 300));
}

}  // namespace

ServerChat::ServerChat(ServerFlags flags, ChatState state)
    : flags_(std::move(flags)), state_(std::move(state)) {
  std::string url = flags_.url;
  while (url.ends_with('/')) url.pop_back();
  if (!url.starts_with("http://") && !url.starts_with("https://"))
    throw Error("--url", printable(flags_.url) + " is no address of a server",
                "http://127.0.0.1:8080, for instance");
  constexpr std::string_view kRoute = "/chat/completions";
  endpoint_ = url.ends_with(kRoute) ? url : url + std::string(kRoute);
  const char* key = std::getenv(flags_.key_env.c_str());
  key_ = key ? key : "";
  state_.info = fmt::format("server        {}\nmodel         {}\n", endpoint_,
                            flags_.model.empty() ? "deepseek-chat or -reasoner" : flags_.model);
}

std::string ServerChat::request() const {
  const ChatSettings& s = state_.settings;
  const SamplingParams plain, &p = s.sampling;
  ordered_json j;
  j["model"] = !flags_.model.empty() ? flags_.model
               : s.thinking          ? "deepseek-reasoner"
                                     : "deepseek-chat";
  j["messages"] = ordered_json::parse(write_chat_messages(state_.talk.messages()));
  j["stream"] = true;
  j["stream_options"] = {{"include_usage", true}};
  if (s.num_predict > 0) j["max_tokens"] = s.num_predict;
  if (!s.stop.empty()) j["stop"] = s.stop;
  // What was not set is the server's choice.
  if (s.think.most) j["thinking_budget"] = *s.think.most;
  auto add = [&](const char* field, const char* parameter, auto value, auto usual) {
    if (s.given.contains(parameter) || value != usual) j[field] = value;
  };
  add("temperature", "temperature", p.temperature, plain.temperature);
  add("top_p", "top_p", p.top_p, plain.top_p);
  add("top_k", "top_k", p.top_k, plain.top_k);
  add("min_p", "min_p", p.min_p, plain.min_p);
  add("repetition_penalty", "repeat_penalty", p.repetition_penalty, plain.repetition_penalty);
  add("presence_penalty", "presence_penalty", p.presence_penalty, plain.presence_penalty);
  add("frequency_penalty", "frequency_penalty", p.frequency_penalty, plain.frequency_penalty);
  add("typical_p", "typical_p", p.typical_p, plain.typical_p);
  add("seed", "seed", p.seed, plain.seed);
  for (auto [id, bias] : p.logit_bias)
    j["logit_bias"][std::to_string(id)] = std::max(bias, -100.0f);
  if (s.format.json) j["response_format"] = {{"type", "json_object"}};
  if (!s.format.schema.empty()) {
    std::string schema = schema_text(s.format);
    // Says what is wrong with it.
    parse_json(schema, schema == s.format.schema ? "json schema" : s.format.schema);
    // In the file's order, which is that of the answer.
    j["response_format"] = {
        {"type", "json_schema"},
        {"json_schema", {{"name", "answer"}, {"schema", ordered_json::parse(schema)}}}};
  }
  if (!s.format.grammar.empty()) j["grammar"] = read_file(s.format.grammar);
  return j.dump();
}

bool ServerChat::answer(const std::string& question) {
  InterruptSignal interrupt;
  Conversation& talk = state_.talk;
  talk.say("user", question);
  Stream s;
  double begin = monotonic_seconds();
  try {
    const ChatSettings& set = state_.settings;
    WordWrap lines(set.wordwrap ? output_columns() : 0, StreamPrinter::to_stdout);
    AnswerView view(
        show_thinking(set.hide_thinking), [&](std::string_view t) { lines.push(t); },
        state_.unfold());
    EventStream events;
    std::exception_ptr wrong;  // not through curl
    auto piece = [&](std::string_view bytes) {
      if (s.first_s == 0) s.first_s = monotonic_seconds() - begin;
      try {
        events.push(bytes, [&](std::string_view data) { take_event(s, data, view); });
      } catch (...) {
        wrong = std::current_exception();
      }
      return !wrong && !interrupt.requested();
    };
    HttpReply reply =
        http_stream(key_, endpoint_, request(), piece, [&] { return !interrupt.requested(); });
    view.finish();
    lines.finish();
    state_.thought = view.thought();
    if (wrong) std::rethrow_exception(wrong);
    if (reply.status == 0) throw Error(endpoint_, reply.error, "is a server running there?");
    if (reply.status != 200)
      throw Error(endpoint_, fmt::format("answers {}: {}", reply.status, reason(reply.body)),
                  reply.status == 401 ? "put the key into $" + flags_.key_env : "");
    if (!s.error.empty()) throw Error(endpoint_, s.error);
    if (!s.done && !interrupt.requested())
      throw Error(endpoint_, "broke off in the middle of an answer", "ask again");
  } catch (const Error&) {
    talk.take_back();
    throw;
  }
  fmt::print("\n");
  std::fflush(stdout);
  double seconds = monotonic_seconds() - begin;
  if (state_.settings.verbose) {
    fmt::print(stderr, "prompt {} tokens, {} of them cached, {}; answer {} tokens, {}\n", s.prompt,
               s.cached, human_duration(s.first_s), s.tokens,
               human_rate(static_cast<double>(s.tokens) / std::max(seconds, 1e-9), "tok"));
  }
  if (s.content.empty() && s.reasoning.empty()) {
    talk.take_back();  // nothing was said
  } else {
    talk.say("assistant", s.content);  // reasoning is not sent again (DeepSeek's guide)
  }
  return !interrupt.requested();
}

}  // namespace wels
