#include "serve/load_client.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/event_stream.h"

namespace wels {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using SteadyClock = std::chrono::steady_clock;

double seconds_since(SteadyClock::time_point t) {
  return std::chrono::duration<double>(SteadyClock::now() - t).count();
}

void read_usage(const nlohmann::json& j, LoadStream& s) {
  if (!j.contains("usage") || !j["usage"].is_object()) return;
  const nlohmann::json& u = j["usage"];
  s.prompt_tokens = u.value("prompt_tokens", int64_t{0});
  s.cached_tokens = u.value("prompt_cache_hit_tokens", int64_t{0});
  s.completion_tokens = u.value("completion_tokens", int64_t{0});
}

// `part`: "delta" of an event's choices, "message" of a whole answer's.
void read_text(const nlohmann::json& j, const char* part, LoadStream& s) {
  for (const nlohmann::json& choice : j.value("choices", nlohmann::json::array())) {
    for (const char* key : {"reasoning_content", "content"}) {
      const nlohmann::json& said = choice.at(part);
      if (said.contains(key) && said[key].is_string()) s.text += said[key];
    }
  }
}

// What a stream's events say. True: there was text among them.
bool read_events(EventStream& stream, std::string_view bytes, LoadStream& s) {
  size_t before = s.text.size();
  stream.push(bytes, [&](std::string_view e) {
    s.done = e == "[DONE]";
    if (s.done) return;
    nlohmann::json j = nlohmann::json::parse(e);
    read_usage(j, s);
    read_text(j, "delta", s);
  });
  return s.text.size() > before;
}

std::string request_text(const LoadTarget& target, const std::string& body) {
  std::string key = target.key.empty() ? "" : "Authorization: Bearer " + target.key + "\r\n";
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: {}:{}\r\nContent-Type: application/json\r\n{}Content-Length: "
      "{}\r\nConnection: close\r\n\r\n{}",
      target.path, target.address, target.port, key, body.size(), body);
}

asio::awaitable<void> wait_s(double s) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_after(std::chrono::microseconds(static_cast<int64_t>(s * 1e6)));
  co_await timer.async_wait(asio::use_awaitable);
}

void read_whole(const std::string& body, LoadStream& s, double seconds) {
  nlohmann::json j = nlohmann::json::parse(body);
  read_usage(j, s);
  read_text(j, "message", s);
  s.first_s = seconds;
  s.done = true;
}

// Reads one response into `s`, as it comes.
asio::awaitable<void> read_stream(tcp::socket& socket, const LoadClient& client, LoadStream& s,
                                  SteadyClock::time_point begun) {
  boost::beast::flat_buffer buffer(client.bytes_per_s > 0 ? 512 : 65536);
  http::response_parser<http::string_body> parser;
  parser.body_limit(boost::none);
  EventStream stream;
  size_t taken = 0;
  int64_t events = 0;
  SteadyClock::time_point last = begun;
  while (!parser.is_done()) {
    size_t n = co_await http::async_read_some(socket, buffer, parser, asio::use_awaitable);
    if (parser.is_header_done()) s.status = parser.get().result_int();
    const std::string& body = parser.get().body();
    if (s.status == 200 && parser.get()[http::field::content_type] == "application/json") {
      if (parser.is_done()) read_whole(body, s, seconds_since(begun));
    } else if (s.status == 200 && read_events(stream, std::string_view(body).substr(taken), s)) {
      (events++ == 0 ? s.first_s = seconds_since(begun)
                     : s.gaps_s.emplace_back(seconds_since(last)));
      last = SteadyClock::now();
      if (client.leaves_after >= 0 && events >= client.leaves_after) {
        s.left = true;
        co_return;
      }
    }
    taken = body.size();
    if (client.bytes_per_s > 0) co_await wait_s(static_cast<double>(n) / client.bytes_per_s);
  }
}

asio::awaitable<void> ask(const LoadTarget& target, const LoadClient& client, size_t first,
                          std::vector<LoadStream>& streams) {
  tcp::endpoint to(asio::ip::make_address(target.address), static_cast<uint16_t>(target.port));
  for (size_t i = 0; i < client.bodies.size(); ++i) {
    LoadStream& s = streams[first + i];
    SteadyClock::time_point begun = SteadyClock::now();
    try {
      tcp::socket socket(co_await asio::this_coro::executor);
      socket.open(tcp::v4());
      if (client.bytes_per_s > 0) socket.set_option(tcp::socket::receive_buffer_size(4096));
      co_await socket.async_connect(to, asio::use_awaitable);
      co_await asio::async_write(socket, asio::buffer(request_text(target, client.bodies[i])),
                                 asio::use_awaitable);
      co_await read_stream(socket, client, s, begun);
    } catch (const std::exception&) {  // what came so far is the result: `done` is false
    }
    s.total_s = seconds_since(begun);
  }
}

}  // namespace

std::vector<LoadStream> run_load(const LoadTarget& target, std::vector<LoadClient> clients) {
  asio::io_context io(1);
  tcp::socket probe(io);
  boost::system::error_code ec;
  probe.connect({asio::ip::make_address(target.address), static_cast<uint16_t>(target.port)}, ec);
  if (ec)
    throw Error(fmt::format("{}:{}", target.address, target.port), ec.message(),
                "is a server running there?");
  probe.close();
  std::vector<LoadStream> streams;
  std::vector<size_t> first;
  for (size_t c = 0; c < clients.size(); ++c) {
    first.push_back(streams.size());
    for (size_t r = 0; r < clients[c].bodies.size(); ++r)
      streams.push_back({.client = c, .request = r});
  }
  for (size_t c = 0; c < clients.size(); ++c)
    asio::co_spawn(io, ask(target, clients[c], first[c], streams), asio::detached);
  io.run_for(std::chrono::milliseconds(static_cast<int64_t>(target.give_up_s * 1000)));
  return streams;
}

double quantile(std::vector<double>& values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  auto at = static_cast<size_t>(std::ceil(q * static_cast<double>(values.size())));
  return values[std::clamp<size_t>(at, 1, values.size()) - 1];
}

}  // namespace wels
