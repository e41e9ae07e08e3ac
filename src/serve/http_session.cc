// One connection: read a request, have it answered, again. Only the I/O thread touches a session;
// exchanges post to it. While a request is answered one read is pending, so that a client who
// leaves is noticed.
#include "serve/http_session.h"

#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace wels {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

Clock::duration seconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

std::string field(const http::fields& fields, http::field name) {
  auto it = fields.find(name);
  return it == fields.end() ? "" : std::string(it->value());
}

std::string field(const http::fields& fields, const char* name) {
  auto it = fields.find(name);
  return it == fields.end() ? "" : std::string(it->value());
}

// "http://host/path", as proxies are asked, is "/path" here.
std::string origin_form(std::string_view target) {
  size_t scheme = target.find("://");
  if (target.starts_with('/') || scheme == std::string_view::npos) return std::string(target);
  size_t path = target.find_first_of("/?", scheme + 3);
  if (path == std::string_view::npos) return "/";
  return (target[path] == '?' ? "/" : "") + std::string(target.substr(path));
}

template <class Stream>
class Session : public SessionBase, public std::enable_shared_from_this<Session<Stream>> {
 public:
  template <class... Args>
  Session(SessionShared& shared, Args&&... args)
      : shared_(shared), stream_(std::forward<Args>(args)...) {
    shared_.sessions.insert(this);
    error_code ignored;
    peer_ = stream_.lowest_layer().remote_endpoint(ignored).address().to_string(ignored);
    stream_.lowest_layer().set_option(tcp::no_delay(true), ignored);
  }
  ~Session() override {
    release_body();
    shared_.sessions.erase(this);
  }

  void start() override {
    set_deadline(shared_.limits.header_s);
    if constexpr (requires { stream_.handshake(asio::ssl::stream_base::server); }) {
      stream_.async_handshake(asio::ssl::stream_base::server,
                              [self = this->shared_from_this()](error_code ec) {
                                if (!ec) self->wait_for_request();
                              });
    } else {
      wait_for_request();
    }
  }

  void tick(Clock::time_point now) override {
    if (now >= deadline_) return close();
    if (!exchange_ || writing_ || now < last_write_ + seconds(shared_.limits.keep_alive_s)) return;
    if (source_) {
      send_body(source_->keep_alive());
    } else if (patient_) {
      if (!chunked_begun_) begin_chunks({});
      send_body("\n");
    }
  }

  void drain() override {
    if (!exchange_ && !reading_body_) close();
  }

  void close() override {
    error_code ignored;
    stream_.lowest_layer().shutdown(tcp::socket::shutdown_both, ignored);
    stream_.lowest_layer().close(ignored);
    leave();
  }

 private:
  class Exchange;
  using Parser = http::request_parser<http::string_body>;

  void set_deadline(double s) { deadline_ = Clock::now() + seconds(s); }
  void no_deadline() { deadline_ = Clock::time_point::max(); }
  void release_body() {
    shared_.body_bytes -= body_charge_;
    body_charge_ = 0;
  }

  // --- reading ---

  void wait_for_request() {
    if (shared_.draining) return close();
    common_.clear();
    request_ = {};
    http_1_0_ = false;
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(shared_.limits.header_bytes));
    parser_->body_limit(shared_.limits.body_bytes);
    if (buffer_.size() > 0) return read_header();
    set_deadline(shared_.limits.idle_s);
    if (watching_) return;  // that read is still pending and goes on here
    watch();
  }

  // One read that is pending while nothing else reads: the first bytes of a request, or the news
  // that the client has left.
  void watch() {
    if (watching_) return;
    watching_ = true;
    stream_.async_read_some(buffer_.prepare(4096),
                            [self = this->shared_from_this()](error_code ec, size_t n) {
                              self->watching_ = false;
                              if (ec) return self->close();
                              if (self->closing_) return self->watch();
                              self->buffer_.commit(n);
                              // The next request already: it waits, and so does the news that the
                              // client has left.
                              if (!self->exchange_) self->read_header();
                            });
  }

  void read_header() {
    set_deadline(shared_.limits.header_s);
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = this->shared_from_this()](error_code ec, size_t) {
                              if (ec) return self->bad_request(ec);
                              self->on_header();
                            });
  }

  void bad_request(error_code ec) {
    bool gone = ec == http::error::end_of_stream || ec == http::error::partial_message ||
                ec.category() != http::make_error_code(http::error::bad_method).category();
    if (gone) return close();
    HttpResponse r{400, "text/plain; charset=utf-8", "Bad request: " + ec.message(), {}, true};
    if (ec == http::error::header_limit) r.status = 431;
    if (ec == http::error::body_limit) r.status = 413;
    answer_now(std::move(r));
  }

  void on_header() {
    const auto& head = parser_->get();
    request_ = {};
    request_.method = std::string(head.method_string());
    std::string target = origin_form(std::string_view(head.target().data(), head.target().size()));
    size_t mark = target.find('?');
    request_.path = target.substr(0, mark);
    if (mark != std::string::npos) request_.query = target.substr(mark + 1);
    request_.authorization = field(head, http::field::authorization);
    request_.api_key = field(head, "x-api-key");
    request_.content_type = field(head, http::field::content_type);
    request_.host = field(head, http::field::host);
    request_.origin = field(head, http::field::origin);
    request_.version = field(head, "anthropic-version");
    request_.accept_encoding = field(head, http::field::accept_encoding);
    request_.if_none_match = field(head, http::field::if_none_match);
    request_.wanted_headers = field(head, http::field::access_control_request_headers);
    request_.last_event_id = field(head, "last-event-id");
    request_.peer = peer_;
    keep_alive_ = parser_->keep_alive();
    http_1_0_ = head.version() < 11;
    auto length = parser_->content_length();
    request_.has_body = (length && *length > 0) || parser_->chunked();
    common_ = shared_.handler.common_headers(request_);
    if (std::optional<HttpResponse> r = shared_.handler.refuse(request_)) {
      r->close = r->close || request_.has_body;  // the body is not read
      return answer_now(std::move(*r));
    }
    if (length && *length > shared_.limits.body_bytes)
      return answer_now({413, "text/plain; charset=utf-8", "The body is too large", {}, true});
    size_t charge = !request_.has_body ? 0 : length ? *length : shared_.limits.body_bytes;
    if (shared_.body_bytes + charge > shared_.limits.all_bodies_bytes) {
      return answer_now({503,
                         "text/plain; charset=utf-8",
                         "Too many large requests at once",
                         {{"Retry-After", "1"}},
                         true});
    }
    body_charge_ = charge;
    shared_.body_bytes += charge;
    reading_body_ = true;
    set_deadline(shared_.limits.body_s);
    if (field(head, http::field::expect) == "100-continue" && request_.has_body) {
      out_ = "HTTP/1.1 100 Continue\r\n\r\n";
      asio::async_write(stream_, asio::buffer(out_),
                        [self = this->shared_from_this()](error_code ec, size_t) {
                          ec ? self->close() : self->read_body();
                        });
    } else {
      read_body();
    }
  }

  void read_body() {
    http::async_read(stream_, buffer_, *parser_,
                     [self = this->shared_from_this()](error_code ec, size_t) {
                       self->reading_body_ = false;
                       self->release_body();
                       if (ec) return self->bad_request(ec);
                       self->on_request();
                     });
  }

  void on_request() {
    request_.body = std::move(parser_->get().body());
    begin_exchange();
    no_deadline();
    if (buffer_.size() == 0) watch();
    shared_.handler.handle(std::move(request_), exchange_);
  }

  void begin_exchange();
  void answer_now(HttpResponse r) {
    begin_exchange();
    respond(exchange_.get(), std::move(r));
  }

  // --- answering; `of` is the exchange that speaks, perhaps one that is over ---

  void respond(const Exchange* of, HttpResponse r) {
    if (of != exchange_.get() || source_ || ending_) return;
    ending_ = true;
    if (chunked_begun_) {  // empty lines have gone out
      send_body(r.body);
      return;
    }
    keep_alive_ = keep_alive_ && !r.close && !shared_.draining;
    r.headers.insert(r.headers.end(), common_.begin(), common_.end());
    queue_ += head_text(r, false, keep_alive_, http_1_0_);
    if (request_method_is_head_) r.body.clear();
    queue_ += r.body;
    flush();
  }

  void stream(const Exchange* of, HttpResponse head, std::shared_ptr<BodySource> source) {
    if (of != exchange_.get() || source_ || ending_) return;
    source_ = std::move(source);
    if (!chunked_begun_) begin_chunks(std::move(head));
    if (!pump(of)) flush();
  }

  void begin_chunks(HttpResponse head) {
    keep_alive_ = keep_alive_ && !head.close && !shared_.draining && !http_1_0_;
    head.headers.insert(head.headers.end(), common_.begin(), common_.end());
    queue_ += head_text(head, !http_1_0_, keep_alive_, http_1_0_);
    chunked_begun_ = true;
  }

  // False: there was nothing to send, and nothing is being sent.
  bool pump(const Exchange* of) {
    if (of != exchange_.get() || !source_ || ending_) return false;
    if (writing_) return true;
    pulled_.clear();
    if (!source_->pull(pulled_)) ending_ = true;
    bool some = !pulled_.empty() || ending_;
    if (some) send_body(pulled_);
    return some;
  }

  // Part of a body of unknown length, and its end where that is reached.
  void send_body(std::string_view text) {
    if (http_1_0_) {
      queue_ += text;
    } else {
      if (!text.empty()) {
        fmt::format_to(std::back_inserter(queue_), "{:x}\r\n", text.size());
        queue_ += text;
        queue_ += "\r\n";
      }
      if (ending_) queue_ += "0\r\n\r\n";
    }
    flush();
  }

  void flush() {
    if (writing_) return;
    if (queue_.empty()) {
      if (ending_) end_exchange();
      return;
    }
    writing_ = true;
    out_.clear();
    std::swap(out_, queue_);
    write_some(0);
  }

  // Piece by piece, so that a client who takes a little is not one who takes nothing.
  void write_some(size_t from) {
    set_deadline(shared_.limits.write_s);
    stream_.async_write_some(asio::buffer(out_) + from,
                             [self = this->shared_from_this(), from](error_code ec, size_t n) {
                               if (ec) return self->close();
                               if (from + n < self->out_.size()) return self->write_some(from + n);
                               self->written();
                             });
  }

  void written() {
    writing_ = false;
    last_write_ = Clock::now();
    no_deadline();
    if (!queue_.empty()) return flush();
    if (ending_) return end_exchange();
    if (exchange_ && !exchange_->listed()) pump(exchange_.get());
  }

  void end_exchange() {
    std::shared_ptr<Session> self = std::move(self_);
    exchange_.reset();
    source_.reset();
    left_ = nullptr;
    ending_ = chunked_begun_ = patient_ = false;
    if (!keep_alive_) return finish_connection();
    wait_for_request();
  }

  // Says goodbye and waits a little for the client to go first: closing at once with bytes unread
  // would reset the connection, and the client might lose the response.
  void finish_connection() {
    error_code ignored;
    stream_.lowest_layer().shutdown(tcp::socket::shutdown_send, ignored);
    set_deadline(2);
    closing_ = true;
    buffer_.clear();
    watch();
  }

  void leave() {
    if (!exchange_) return;
    std::shared_ptr<Session> self = std::move(self_);
    exchange_.reset();
    source_.reset();
    if (left_) std::exchange(left_, nullptr)();
  }

  void set_left(const Exchange* of, std::function<void()> left) {
    if (of != exchange_.get()) return left();
    left_ = std::move(left);
  }

  SessionShared& shared_;
  Stream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  HttpRequest request_;
  std::string peer_;
  std::vector<std::pair<std::string, std::string>> common_;
  std::shared_ptr<Exchange> exchange_;
  std::shared_ptr<Session> self_;  // while a request is answered nothing else may hold it
  std::shared_ptr<BodySource> source_;
  std::function<void()> left_;
  std::string queue_, out_;  // to be written, being written
  std::string pulled_;       // kept for its memory
  size_t body_charge_ = 0;
  bool keep_alive_ = false, http_1_0_ = false, request_method_is_head_ = false;
  bool watching_ = false, writing_ = false, reading_body_ = false, closing_ = false;
  bool ending_ = false;         // nothing comes after what is queued
  bool chunked_begun_ = false;  // the head of a body of unknown length is sent
  bool patient_ = false;        // empty lines may be sent
  Clock::time_point deadline_ = Clock::time_point::max(), last_write_ = Clock::now();
};

template <class Stream>
class Session<Stream>::Exchange : public HttpExchange,
                                  public PacedStream,
                                  public std::enable_shared_from_this<Exchange> {
 public:
  explicit Exchange(std::shared_ptr<Session> session)
      : io_(session->shared_.io), pacer_(session->shared_.pacer), session_(session) {}
  void respond(HttpResponse r) override {
    post([r = std::move(r)](Session& s, const Exchange* of) mutable {
      s.respond(of, std::move(r));
    });
  }
  void stream(HttpResponse head, std::shared_ptr<BodySource> source) override {
    post([head = std::move(head), source = std::move(source)](Session& s,
                                                              const Exchange* of) mutable {
      s.stream(of, std::move(head), std::move(source));
    });
  }
  void wake() override { pacer_.wake(this->shared_from_this()); }
  void wake_at_once() override {
    asio::post(io_, [self = this->shared_from_this()] { self->pump(); });
  }
  bool pump() override {
    std::shared_ptr<Session> session = session_.lock();
    return session && session->pump(this);
  }
  void expect_wait() override {
    post([](Session& s, const Exchange* of) {
      if (s.exchange_.get() == of) s.patient_ = true;
    });
  }
  void on_left(std::function<void()> left) override {
    asio::post(io_, [self = this->shared_from_this(), left = std::move(left)]() mutable {
      std::shared_ptr<Session> session = self->session_.lock();
      session ? session->set_left(self.get(), std::move(left)) : left();
    });
  }

 private:
  template <class Fn>
  void post(Fn fn) {
    asio::post(io_, [self = this->shared_from_this(), fn = std::move(fn)]() mutable {
      if (std::shared_ptr<Session> session = self->session_.lock()) fn(*session, self.get());
    });
  }
  asio::io_context& io_;
  StreamPacer& pacer_;
  std::weak_ptr<Session> session_;
};

template <class Stream>
void Session<Stream>::begin_exchange() {
  request_method_is_head_ = request_.method == "HEAD";
  last_write_ = Clock::now();
  self_ = this->shared_from_this();
  exchange_ = std::make_shared<Exchange>(self_);
}

}  // namespace

std::string head_text(const HttpResponse& r, bool chunked, bool keep_alive, bool http_1_0) {
  std::string out =
      fmt::format("HTTP/1.{} {} {}\r\n", http_1_0 ? 0 : 1, r.status,
                  std::string(http::obsolete_reason(static_cast<http::status>(r.status))));
  if (!r.content_type.empty()) out += "Content-Type: " + r.content_type + "\r\n";
  for (const auto& [name, value] : r.headers) out += name + ": " + value + "\r\n";
  if (chunked) {
    out += "Transfer-Encoding: chunked\r\nX-Accel-Buffering: no\r\n";
  } else if (keep_alive || r.status != 200 || !r.body.empty()) {
    if (r.status != 204 && r.status != 304)
      out += fmt::format("Content-Length: {}\r\n", r.body.size());
  }
  if (!keep_alive) out += "Connection: close\r\n";
  if (keep_alive && http_1_0) out += "Connection: keep-alive\r\n";
  return out + "\r\n";
}

std::shared_ptr<SessionBase> make_session(SessionShared& shared, tcp::socket socket,
                                          asio::ssl::context* tls) {
  if (tls)
    return std::make_shared<Session<asio::ssl::stream<tcp::socket>>>(shared, std::move(socket),
                                                                     *tls);
  return std::make_shared<Session<tcp::socket>>(shared, std::move(socket));
}

}  // namespace wels
