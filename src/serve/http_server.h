// HttpServer: HTTP/1.1 over plain or TLS sockets for thousands of connections on one thread, with
// Boost.Asio and Beast's request parser. Responses are framed here: keep-alive, chunks, server-sent
// events.
//
// Nothing a client does can stall others or grow without bound: headers, bodies and connections
// have limits, each phase of a request a deadline (a header that drips in is cut off), bodies being
// read share one budget, and a streamed body is pulled from its source only when the client has
// taken what came before.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "serve/http.h"

namespace wels {

struct HttpLimits {
  size_t header_bytes = 16 << 10;
  size_t body_bytes = 32 << 20;
  size_t all_bodies_bytes = 256 << 20;  // of requests that are being read
  int connections = 4096;
  double idle_s = 75;          // between requests of a connection
  double header_s = 15;        // from the first byte of a request to the end of its header
  double body_s = 120;         // for the body
  double write_s = 60;         // that the client takes nothing of what is sent
  double keep_alive_s = 10;    // between signs of life while a response has nothing to send
  double stream_gap_s = 0.01;  // what a stream says in it is sent together; 0: all as it comes
};

struct HttpServerOptions {
  std::string address = "127.0.0.1";
  int port = 0;                                    // 0: any free one
  std::string tls_certificate = {}, tls_key = {};  // PEM files; empty: plain
  HttpLimits limits = {};
  double drain_s = 30;
};

void require_ip_address(const std::string& address);  // Error, if it is none

class HttpServer {
 public:
  // Listens. Throws Error: an address that can't be bound, files that are no certificate or key.
  HttpServer(HttpServerOptions options, HttpHandler& handler);
  ~HttpServer();
  int port() const;
  // Until stop(): serves on the calling thread. `poll`, if given, is asked ten times a second;
  // true is as stop().
  void run(const std::function<bool()>& poll = {});
  // From any thread: no new connections and requests; run() returns when those under way are
  // answered, at the latest after options.drain_s.
  void stop();
  int64_t connections() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace wels
