#include "serve/http_server.h"

#include <fmt/format.h>

#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/error.h"
#include "serve/http_session.h"

namespace wels {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;

void require_ip_address(const std::string& address) {
  error_code ec;
  asio::ip::make_address(address, ec);
  if (ec)
    throw Error("--host", fmt::format("'{}' is no IP address", address),
                "use 127.0.0.1, 0.0.0.0 or ::");
}

struct HttpServer::Impl {
  Impl(HttpServerOptions o, HttpHandler& handler)
      : options(std::move(o)), shared{io, handler, options.limits, pacer} {}

  void listen() {
    require_ip_address(options.address);
    error_code ec;
    auto address = asio::ip::make_address(options.address);
    std::string where = fmt::format("{}:{}", options.address, options.port);
    tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
    acceptor.open(endpoint.protocol(), ec);
    if (!ec) acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
    if (!ec) acceptor.bind(endpoint, ec);
    if (!ec) acceptor.listen(1024, ec);
    if (ec) {
      bool foreign = ec == boost::system::errc::address_not_available;
      throw Error(where, "cannot listen: " + ec.message(),
                  foreign ? "choose another --host" : "choose another --port");
    }
  }

  void open_tls() {
    if (options.tls_certificate.empty() != options.tls_key.empty())
      throw Error("--tls-cert", "certificate and key belong together",
                  "give --tls-cert and --tls-key");
    if (options.tls_certificate.empty()) return;
    tls.emplace(asio::ssl::context::tls_server);
    tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv3 |
                     asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1);
    error_code ec;
    tls->use_certificate_chain_file(options.tls_certificate, ec);
    if (ec) throw Error(options.tls_certificate, "is no PEM certificate: " + ec.message());
    tls->use_private_key_file(options.tls_key, asio::ssl::context::pem, ec);
    if (ec) throw Error(options.tls_key, "is not the certificate's PEM key: " + ec.message());
  }

  void accept() {
    acceptor.async_accept([this](error_code ec, tcp::socket socket) {
      if (!acceptor.is_open()) return;
      if (!ec && shared.sessions.size() < static_cast<size_t>(shared.limits.connections)) {
        make_session(shared, std::move(socket), tls ? &*tls : nullptr)->start();
        count = static_cast<int64_t>(shared.sessions.size());
      }
      if (!ec) return accept();
      // No file descriptor is left: those who are there go on, and new ones wait a moment.
      pause.expires_after(std::chrono::milliseconds(50));
      pause.async_wait([this](error_code stopped) {
        if (!stopped && acceptor.is_open()) accept();
      });
    });
  }

  void tick(const std::function<bool()>& poll) {
    Clock::time_point now = Clock::now();
    if (!shared.draining && poll && poll()) begin_drain();
    std::vector<SessionBase*> all(shared.sessions.begin(), shared.sessions.end());
    for (SessionBase* s : all) {
      if (shared.sessions.contains(s)) s->tick(now);
    }
    count = static_cast<int64_t>(shared.sessions.size());
    if (shared.draining && (shared.sessions.empty() || now >= drain_end)) return io.stop();
    timer.expires_after(std::chrono::milliseconds(100));
    timer.async_wait([this, &poll](error_code ec) {
      if (!ec) tick(poll);
    });
  }

  void begin_drain() {
    if (shared.draining) return;
    shared.draining = true;
    drain_end =
        Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(options.drain_s * 1000));
    error_code ignored;
    acceptor.close(ignored);
    std::vector<SessionBase*> all(shared.sessions.begin(), shared.sessions.end());
    for (SessionBase* s : all) {
      if (shared.sessions.contains(s)) s->drain();
    }
  }

  HttpServerOptions options;
  SessionShared shared;  // outlives what waits in io
  std::optional<asio::ssl::context> tls;
  asio::io_context io{1};
  StreamPacer pacer{io, options.limits.stream_gap_s};
  tcp::acceptor acceptor{io};
  asio::steady_timer timer{io}, pause{io};
  Clock::time_point drain_end;
  std::atomic<int64_t> count{0};
};

HttpServer::HttpServer(HttpServerOptions options, HttpHandler& handler)
    : impl_(std::make_unique<Impl>(std::move(options), handler)) {
  impl_->open_tls();
  impl_->listen();
}

HttpServer::~HttpServer() = default;

int HttpServer::port() const { return impl_->acceptor.local_endpoint().port(); }

int64_t HttpServer::connections() const { return impl_->count; }

void HttpServer::run(const std::function<bool()>& poll) {
  impl_->accept();
  impl_->tick(poll);
  impl_->io.run();
  std::vector<SessionBase*> all(impl_->shared.sessions.begin(), impl_->shared.sessions.end());
  for (SessionBase* s : all) {
    if (impl_->shared.sessions.contains(s)) s->close();
  }
  impl_->io.restart();
  impl_->io.poll();  // what was cancelled lets its session go
}

void HttpServer::stop() {
  asio::post(impl_->io, [this] { impl_->begin_drain(); });
}

}  // namespace wels
