#include "distill/endpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "formats/json.h"
#include "tasks/answer.h"

namespace wels {
namespace {

using nlohmann::json;

bool may_pass(int status) {
  return status == 0 || status == 408 || status == 409 || status == 429 || status >= 500;
}

// A dated or sized version counts as the model: "gpt-4o" may answer as "gpt-4o-2024-08-06".
bool is_model(const std::string& asked, const std::string& says) {
  return says == asked || says.starts_with(asked + "-") || says.ends_with("/" + asked);
}

std::string text_of(const json& object, const char* key) {
  auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

// The message of a completion, or nullopt where the JSON is not of the form.
std::optional<GivenAnswer> answer_of(const json& reply) {
  if (!reply.is_object() || !reply.contains("choices")) return std::nullopt;
  const json& choices = reply["choices"];
  if (!choices.is_array() || choices.empty() || !choices[0].is_object()) return std::nullopt;
  const json& choice = choices[0];
  if (!choice.contains("message") || !choice["message"].is_object()) return std::nullopt;
  const json& m = choice["message"];
  GivenAnswer out;
  std::string content = text_of(m, "content"), thought = text_of(m, "reasoning_content");
  if (!thought.empty() && content.find(kThinkEnd) == std::string::npos)
    content = fmt::format("{}{}{}{}", kThinkBegin, thought, kThinkEnd, content);
  bool begun = content.find(kThinkEnd) != std::string::npos && !content.starts_with(kThinkBegin);
  out.answer = parse_completion(content, begun).answer;
  out.content = begun ? std::string(kThinkBegin) + content : content;
  out.ended = text_of(choice, "finish_reason") == "stop";
  if (reply.contains("usage") && reply["usage"].is_object()) {
    const json& usage = reply["usage"];
    if (usage.contains("completion_tokens") && usage["completion_tokens"].is_number_integer())
      out.tokens = usage["completion_tokens"].get<int64_t>();
  }
  return out;
}

std::optional<json> try_json(const std::string& body) {
  try {
    return parse_json(body, "reply");
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

EndpointAnswers::EndpointAnswers(EndpointSettings settings, HttpSend send,
                                 std::function<bool(double)> wait)
    : s_(std::move(settings)), send_(std::move(send)), wait_(std::move(wait)) {
  while (s_.url.ends_with('/')) s_.url.pop_back();
}

std::string EndpointAnswers::about() const {
  return fmt::format("{} at {} temperature {} max_tokens {}", s_.model, s_.url, s_.temperature,
                     s_.max_tokens);
}

// The body of a reply with status 200 for which wrong() is empty. may_be_missing: an address that
// does not exist gives an empty one.
std::string EndpointAnswers::request(
    const std::string& url, const std::string& body, bool may_be_missing,
    const std::function<std::string(const std::string&)>& wrong) const {
  double wait_s = s_.first_wait_s;
  std::string why;
  for (int64_t attempt = 1; attempt <= s_.attempts; ++attempt) {
    HttpReply r = send_(url, body);
    if (r.status == 200) {
      why = wrong(r.body);
      if (why.empty()) return r.body;
    } else if (may_be_missing && (r.status == 404 || r.status == 405)) {
      return "";
    } else {
      why = r.status == 0 ? r.error : fmt::format("status {}: {}", r.status, printable(r.body));
      if (!may_pass(r.status))
        throw Error(url, why,
                    r.status == 401 || r.status == 403
                        ? "set the key in the variable that --teacher-key-env names"
                        : "check --teacher-url and --teacher-model");
    }
    if (attempt == s_.attempts) break;
    double seconds = std::max(wait_s, std::min(r.retry_after_s, 10 * s_.longest_wait_s));
    log_warn("{}: {}; trying again in {:.0f} s", url, why, seconds);
    if (!wait_(seconds)) throw Error(url, "stopped while waiting for the endpoint", "");
    wait_s = std::min(2 * wait_s, s_.longest_wait_s);
  }
  throw Error(url, fmt::format("failed {} times, at last: {}", s_.attempts, why),
              "the same command goes on where it stopped");
}

void EndpointAnswers::require_model() const {
  std::string url = s_.url + "/models";
  std::optional<json> list;
  request(url, "", true, [&](const std::string& text) {
    list = try_json(text);
    bool good = list && list->is_object() && list->contains("data") && (*list)["data"].is_array();
    return good ? "" : "the list of models is not of OpenAI's form";
  });
  if (!list) return;  // it has none
  std::string names;
  for (const json& m : (*list)["data"]) {
    std::string id = m.is_object() ? text_of(m, "id") : "";
    if (is_model(s_.model, id)) return;
    if (names.size() < 200) names += (names.empty() ? "" : ", ") + printable(id);
  }
  throw Error("--teacher-model", fmt::format("{} has no model {}", s_.url, s_.model),
              "it has " + (names.empty() ? "none" : names));
}

GivenAnswer EndpointAnswers::one(const std::string& question) const {
  json body = {{"model", s_.model},
               {"messages", {{{"role", "user"}, {"content", question}}}},
               {"temperature", s_.temperature},
               {"max_tokens", s_.max_tokens},
               {"stream", false}};
  GivenAnswer out;
  std::string says;
  request(s_.url + "/chat/completions", body.dump(-1, ' ', false, json::error_handler_t::replace),
          false, [&](const std::string& text) -> std::string {
            std::optional<json> reply = try_json(text);
            std::optional<GivenAnswer> a = reply ? answer_of(*reply) : std::nullopt;
            if (!a) return "the reply is not a chat completion: " + printable(text);
            out = std::move(*a);
            says = text_of(*reply, "model");
            return "";
          });
  if (!is_model(s_.model, says)) {
    throw Error(s_.url, fmt::format("answered as \"{}\", not as {}", printable(says), s_.model),
                "check --teacher-model; answers of another model must not be mixed in");
  }
  return out;
}

std::vector<std::vector<GivenAnswer>> EndpointAnswers::ask(std::span<const std::string> questions,
                                                           int64_t, int64_t tries) {
  auto n = static_cast<int64_t>(questions.size()) * tries;
  std::vector<std::vector<GivenAnswer>> out(questions.size(),
                                            std::vector<GivenAnswer>(static_cast<size_t>(tries)));
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  auto work = [&] {
    for (int64_t i; (i = next++) < n;) {
      try {
        auto q = static_cast<size_t>(i / tries), k = static_cast<size_t>(i % tries);
        out[q][k] = one(questions[q]);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next = n;
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int64_t i = 0; i < std::min(s_.parallel, n); ++i) threads.emplace_back(work);
  }
  if (error) std::rethrow_exception(error);
  return out;
}

}  // namespace wels
