// A teacher behind an OpenAI-compatible endpoint: POST <url>/chat/completions for every try,
// several at a time, with retries.
//
// What is retried, with doubled waits: no connection, time-out, 408, 409, 429 (its Retry-After is
// heeded) and 5xx, and answers that are no JSON of the form. 400, 413, 422 and 451 refuse one
// question (a content filter, its length): it is skipped, unless so many in a row are refused that
// it must be the request itself, or, behind the last ones of a block, a plain question is refused
// too. Everything else is an Error at once, also an endpoint that answers as another model than it
// was asked for; one that does not say which is warned of.
#pragma once
#include <atomic>
#include <functional>
#include <set>
#include <string>

#include "distill/answers.h"
#include "distill/http_client.h"

namespace wels {

struct EndpointSettings {
  std::string url;    // "https://api.deepseek.com/v1"
  std::string model;  // its name there
  double temperature = 0.6;
  int64_t max_tokens = 4096;
  int64_t parallel = 4;  // requests at a time
  int64_t attempts = 8;  // of one request
  int64_t refusals = 8;  // questions in a row that may be refused
  double first_wait_s = 1, longest_wait_s = 60;
};

class EndpointAnswers : public AnswerSource {
 public:
  // wait(seconds) sleeps; false: give up (a stop was asked for). After a signal (base/signal.h)
  // nothing more is asked.
  EndpointAnswers(EndpointSettings settings, HttpSend send, std::function<bool(double)> wait);

  // Throws Error unless the endpoint lists the model; endpoints without a list pass.
  void require_model() const;
  std::string about() const override;
  std::vector<std::vector<GivenAnswer>> ask(std::span<const std::string> questions, int64_t first,
                                            int64_t tries, AnswerJournal& journal) override;

 private:
  GivenAnswer one(const std::string& question);
  std::string request(const std::string& url, const std::string& body, bool may_be_missing,
                      const std::function<std::string(const std::string&)>& wrong) const;

  EndpointSettings s_;
  HttpSend send_;
  std::function<bool(double)> wait_;
  std::set<int64_t> refused_;         // numbers of the questions refused since the last answer
  std::atomic<bool> unnamed_{false};  // it has answered without saying which model it is
};

}  // namespace wels
