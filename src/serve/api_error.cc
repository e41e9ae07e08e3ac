#include "serve/api_error.h"

#include <nlohmann/json.hpp>

#include "engine/token_mask.h"

namespace wels {
namespace {

constexpr const char* kInvalid = "invalid_request_error";

ApiError json_error(int status, const std::string& message, const char* type,
                    const char* code = kInvalid) {
  HttpResponse r;
  r.status = status;
  r.body = error_body(message, type, code);
  return {std::move(r), message};
}

ApiError plain_error(int status, const std::string& message, const char* content_type) {
  return {{status, content_type, message}, message};
}

ApiError later(ApiError e, int retry_after_s) {
  HttpResponse r = e.response();
  r.headers.emplace_back("Retry-After", std::to_string(retry_after_s));
  return {std::move(r), e.message()};
}

}  // namespace

std::string error_body(const std::string& message, const std::string& type,
                       const std::string& code) {
  nlohmann::ordered_json error{
      {"message", message}, {"type", type}, {"param", nullptr}, {"code", code}};
  return nlohmann::ordered_json{{"error", error}}.dump(
      -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string anthropic_error(int status, const std::string& message) {
  const char* type = status == 401   ? "authentication_error"
                     : status == 402 ? "billing_error"
                     : status == 403 ? "permission_error"
                     : status == 429 ? "rate_limit_error"
                     : status == 503 ? "overloaded_error"
                     : status >= 500 ? "api_error"
                                     : kInvalid;
  nlohmann::ordered_json error{{"type", type}, {"message", message}};
  return nlohmann::ordered_json{{"type", "error"}, {"error", error}}.dump(
      -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

ApiError invalid_request(const std::string& message) { return json_error(400, message, kInvalid); }

ApiError syntax_error(const std::string& message) {
  return plain_error(400, message, "application/octet-stream");
}

ApiError no_key() { return plain_error(401, "Authentication Fails (governor)", ""); }

ApiError wrong_key(std::string_view key) {
  std::string end(key.substr(key.size() - std::min<size_t>(key.size(), 4)));
  return json_error(401, "Authentication Fails, Your api key: ****" + end + " is invalid",
                    "authentication_error");
}

ApiError forbidden(const std::string& message) { return json_error(403, message, kInvalid); }

ApiError not_json() {
  return plain_error(415, "Expected request with `Content-Type: application/json`",
                     "text/plain; charset=utf-8");
}

ApiError insufficient_balance() { return json_error(402, "Insufficient Balance", "unknown_error"); }

ApiError rate_limited(const std::string& message, int retry_after_s) {
  return later(json_error(429, message, "rate_limit_error", "rate_limit_exceeded"), retry_after_s);
}

ApiError overloaded(const std::string& message, int retry_after_s) {
  return later(json_error(503, message, "service_unavailable_error", "server_overloaded"),
               retry_after_s);
}

ApiError being_stopped() { return overloaded("The server is being stopped", 5); }

ApiError server_error(const std::string& message) {
  return json_error(500, message, "server_error", "internal_error");
}

ApiError generation_error(const Error& e) {
  return e.where() == kGrammarError ? invalid_request(e.what()) : server_error(e.what());
}

ApiError out_of_time() { return overloaded("The answer took longer than a request may here", 5); }

ApiError not_found(const std::string& message) {
  return json_error(404, message, "invalid_request_error", "not_found");
}

HttpResponse empty_response(int status) { return {status, "", ""}; }

HttpResponse fresh_json(std::string body) {
  HttpResponse r;
  r.body = std::move(body);
  r.headers = {{"Cache-Control", "no-cache"}, {"X-Content-Type-Options", "nosniff"}};
  return r;
}

}  // namespace wels
