// ApiError: a request is answered with this response instead; caught where requests are handled.
// Statuses and bodies as DeepSeek's service gives them (observed in July 2026).
#pragma once
#include <exception>
#include <string>

#include "base/error.h"
#include "serve/http.h"

namespace wels {

class ApiError : public std::exception {
 public:
  ApiError(HttpResponse response, std::string message)
      : response_(std::move(response)), message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  const HttpResponse& response() const { return response_; }
  const std::string& message() const { return message_; }

 private:
  HttpResponse response_;
  std::string message_;
};

// {"error": {"message", "type", "param": null, "code"}}
std::string error_body(const std::string& message, const std::string& type,
                       const std::string& code);

// {"type": "error", "error": {"type", "message"}}, as Anthropic's API has it.
std::string anthropic_error(int status, const std::string& message);

ApiError invalid_request(const std::string& message);  // 400
ApiError syntax_error(const std::string& message);     // 400, plain text: no JSON at all
ApiError no_key();                                     // 401, plain text
ApiError wrong_key(std::string_view key);              // 401; shows its last four characters
ApiError forbidden(const std::string& message);        // 403
ApiError not_json();                                   // 415, plain text
ApiError insufficient_balance();                       // 402
ApiError rate_limited(const std::string& message, int retry_after_s);  // 429
ApiError overloaded(const std::string& message, int retry_after_s);    // 503
ApiError being_stopped();                                              // 503
ApiError server_error(const std::string& message);                     // 500
// Why an answer could not be generated to its end: 400 where the request's grammar is at fault.
ApiError generation_error(const Error& e);
ApiError out_of_time();                          // 503: an answer took longer than it may
ApiError not_found(const std::string& message);  // 404, of the page's routes
HttpResponse empty_response(int status);         // 404 and 405 have no body
HttpResponse fresh_json(std::string body);       // 200, that nobody may keep

}  // namespace wels
