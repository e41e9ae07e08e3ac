// The inside of http_server.cc: what all connections share, and a connection (http_session.cc).
#pragma once
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <unordered_set>

#include "serve/http_server.h"
#include "serve/stream_pacer.h"

namespace wels {

using Clock = std::chrono::steady_clock;

class SessionBase {
 public:
  virtual ~SessionBase() = default;
  virtual void start() = 0;
  virtual void tick(Clock::time_point now) = 0;  // deadlines and signs of life
  virtual void drain() = 0;                      // leave when the request under way is answered
  virtual void close() = 0;                      // now
};

// Used on the I/O thread only.
struct SessionShared {
  boost::asio::io_context& io;
  HttpHandler& handler;
  HttpLimits limits;
  StreamPacer& pacer;
  std::unordered_set<SessionBase*> sessions = {};
  size_t body_bytes = 0;  // of bodies being read
  bool draining = false;
};

std::shared_ptr<SessionBase> make_session(SessionShared& shared,
                                          boost::asio::ip::tcp::socket socket,
                                          boost::asio::ssl::context* tls);

// "HTTP/1.1 200 OK\r\n..." to the empty line. chunked: a body of unknown length.
std::string head_text(const HttpResponse& r, bool chunked, bool keep_alive, bool http_1_0);

}  // namespace wels
