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
#include "base/signal.h"
#include "formats/json.h"
#include "tasks/answer.h"

namespace wels {
namespace {

using nlohmann::json;

bool may_pass(int status) {
  return status == 0 || status == 408 || status == 409 || status == 429 || status >= 500;
}

// A question that the endpoint does not take, whatever comes of others.
class Refused : public Error {
 public:
  using Error::Error;
};

// What every endpoint answers whose requests are as it wants them.
constexpr const char* kPlainQuestion = "What is 1 + 1?";

bool refuses_question(int status) {
  return status == 400 || status == 413 || status == 422 || status == 451;
}

// "-2024-08-06", "-20240806", "-0806".
bool is_date(std::string_view text) {
  for (std::string_view form : {"-0000-00-00", "-00000000", "-0000"}) {
    auto fits = [](char c, char f) { return f == '-' ? c == '-' : c >= '0' && c <= '9'; };
    if (std::equal(text.begin(), text.end(), form.begin(), form.end(), fits)) return true;
  }
  return false;
}

// A dated version counts as the model: "gpt-4o" may answer as "gpt-4o-2024-08-06", but not as
// "gpt-4o-mini". A hub's name may stand before it: "deepseek-ai/deepseek-r1".
bool is_model(const std::string& asked, std::string_view says) {
  if (size_t slash = says.rfind("/" + asked); slash != std::string_view::npos)
    says.remove_prefix(slash + 1);
  if (!says.starts_with(asked)) return false;
  says.remove_prefix(asked.size());
  return says.empty() || is_date(says);
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
  if (thought.empty()) thought = text_of(m, "reasoning");
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
    throw_if_stopped();
    HttpReply r = send_(url, body);
    if (r.status == 0) throw_if_stopped();
    if (r.status == 200) {
      why = wrong(r.body);
      if (why.empty()) return r.body;
    } else if (may_be_missing && (r.status == 404 || r.status == 405)) {
      return "";
    } else {
      why = r.status == 0 ? r.error : fmt::format("status {}: {}", r.status, printable(r.body));
      if (refuses_question(r.status))
        throw Refused(url, why, "check --teacher-url, --teacher-model and --max-tokens");
      if (!may_pass(r.status))
        throw Error(url, why,
                    r.status == 401 || r.status == 403
                        ? "set the key in the variable that --teacher-key-env names"
                        : "check --teacher-url and --teacher-model");
    }
    if (attempt == s_.attempts) break;
    double seconds = std::max(wait_s, std::min(r.retry_after_s, 10 * s_.longest_wait_s));
    log_warn("{}: {}; trying again in {:.0f} s", url, why, seconds);
    if (!wait_(seconds)) throw Interrupted();
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

GivenAnswer EndpointAnswers::one(const std::string& question) {
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
  if (says.empty()) {
    if (!unnamed_.exchange(true))
      log_warn("{}: does not say which model answers; taken for {}", s_.url, s_.model);
  } else if (!is_model(s_.model, says)) {
    throw Error(s_.url, fmt::format("answered as \"{}\", not as {}", printable(says), s_.model),
                "check --teacher-model; answers of another model must not be mixed in");
  }
  return out;
}

std::vector<std::vector<GivenAnswer>> EndpointAnswers::ask(std::span<const std::string> questions,
                                                           int64_t first, int64_t tries,
                                                           AnswerJournal& journal) {
  auto n = static_cast<int64_t>(questions.size()) * tries;
  std::vector<std::vector<GivenAnswer>> out(questions.size(),
                                            std::vector<GivenAnswer>(static_cast<size_t>(tries)));
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  std::set<int64_t> refused;  // of these questions
  // Refusals are kept only when another answer shows that it was not the request itself.
  GivenAnswer refusal;
  refusal.refused = true;
  auto keep_refused = [&] {
    for (int64_t q : refused) {
      if (refused_.erase(first + q) == 0) continue;
      const std::string& text = questions[static_cast<size_t>(q)];
      for (int64_t k = 0; k < tries; ++k)
        if (!journal.find(q, text, k)) journal.add(q, text, k, refusal);
    }
    refused_.clear();
  };
  auto ask_one = [&](int64_t q, int64_t k) {
    GivenAnswer& to = out[static_cast<size_t>(q)][static_cast<size_t>(k)];
    const std::string& text = questions[static_cast<size_t>(q)];
    if (const GivenAnswer* there = journal.find(q, text, k)) {
      to = *there;
      return;
    }
    to.refused = [&] { return std::lock_guard(mutex), refused.count(q) > 0; }();
    if (to.refused) return;  // another try of it was
    try {
      to = one(text);
      journal.add(q, text, k, to);
      std::lock_guard lock(mutex);
      keep_refused();
    } catch (const Refused& e) {
      to.refused = true;
      std::lock_guard lock(mutex);
      refused.insert(q);
      if (refused_.insert(first + q).second)
        log_warn("a question is skipped: {}: {}", e.where(), e.fact());
      if (static_cast<int64_t>(refused_.size()) >= s_.refusals)
        throw Error(
            e.where(),
            fmt::format("refused {} questions in a row, at last: {}", s_.refusals, e.fact()),
            "check --teacher-model, --max-tokens and the questions");
    }
  };
  auto work = [&] {
    for (int64_t i; (i = next++) < n;) {
      try {
        ask_one(i / tries, i % tries);
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
  if (!refused_.empty()) {
    one(kPlainQuestion);  // Refused: it was not the questions, and they will be asked again
    keep_refused();
  }
  return out;
}

}  // namespace wels
