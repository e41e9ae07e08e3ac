// What the HTTP server (http_server.h) and the routes say to each other: requests with the few
// headers that anybody asks for, whole responses, and bodies that come piece by piece.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace wels {

struct HttpRequest {
  std::string method, path, query;  // path without query, percent-decoding not applied
  // Of these headers:
  std::string authorization, api_key, content_type, host, origin, version, accept_encoding,
      if_none_match, last_event_id;
  std::string wanted_headers;  // Access-Control-Request-Headers, of a page elsewhere
  bool has_body = false;
  std::string body;
  std::string peer;  // the client's address, for the log
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";  // empty: no such header
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};
  bool close = false;  // the connection ends with it
};

// A body that is made as fast as the client reads it. All methods run on the I/O thread.
class BodySource {
 public:
  virtual ~BodySource() = default;
  // Appends what is there now; false: that was all. Called when somebody woke the exchange and the
  // client has taken everything before, so a slow reader gets fewer, larger pieces.
  virtual bool pull(std::string& out) = 0;
  // What to send when nothing has been sent for a while, so that nobody thinks the connection dead.
  virtual std::string keep_alive() = 0;
};

// One request being answered. Every method may be called from any thread, once a response is
// begun only wake().
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void respond(HttpResponse response) = 0;
  // A response of 200 and this head whose body comes from `source`.
  virtual void stream(HttpResponse head, std::shared_ptr<BodySource> source) = 0;
  virtual void wake() = 0;
  virtual void wake_at_once() = 0;  // for the last of it, which is not to wait for a tick
  // While no response is begun, empty lines are sent now and then (and with them status 200).
  virtual void expect_wait() = 0;
  // `left` is called, on the I/O thread, when the client goes before the response has ended; at
  // once where it has gone already.
  virtual void on_left(std::function<void()> left) = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // On the I/O thread, before the body is read: a refusal, or nothing. Must be quick.
  virtual std::optional<HttpResponse> refuse(const HttpRequest& head) = 0;
  // On the I/O thread; must only hand on.
  virtual void handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) = 0;
  // Headers that every response gets.
  virtual std::vector<std::pair<std::string, std::string>> common_headers(
      const HttpRequest& head) = 0;
};

}  // namespace wels
