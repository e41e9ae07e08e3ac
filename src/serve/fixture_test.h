// For tests: a tiny model with DeepSeek's markers in its vocabulary, behind a server in this
// process, and a client that speaks raw bytes.
#pragma once
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "backend/registry.h"
#include "model/tiny_config_test.h"
#include "serve/api.h"
#include "serve/http_server.h"
#include "text/bpe_trainer.h"

namespace wels {

inline Tokenizer tiny_tokenizer() {
  std::vector<std::string_view> text = {"the quick brown fox jumps over the lazy dog and the cat"};
  return Tokenizer(train_bpe(text, deepseek_style_options(300)));
}

// For a request's logit_bias: nothing ends its answer before max_tokens, whatever is drawn and
// however the device rounds.
inline nlohmann::json endless_bias() {
  static const Tokenizer t = tiny_tokenizer();
  return {{std::to_string(*t.eos()), -100}, {std::to_string(*t.find("<｜User｜>")), -100}};
}

class RawClient {
 public:
  explicit RawClient(int port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
    timeval limit{30, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  bool connected() const { return connected_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  bool send(std::string_view text) {
    while (!text.empty()) {
      ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  // More bytes; empty: the end, or nothing for 30 s.
  std::string some(size_t most = 65536) {
    std::string out(most, '\0');
    ssize_t n = ::recv(fd_, out.data(), out.size(), 0);
    out.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return out;
  }
  std::string until(std::string_view end) {
    while (held_.find(end) == std::string::npos) {
      std::string more = some();
      if (more.empty()) break;
      held_ += more;
    }
    size_t at = held_.find(end);
    size_t n = at == std::string::npos ? held_.size() : at + end.size();
    std::string out = held_.substr(0, n);
    held_.erase(0, n);
    return out;
  }
  std::string all() {
    std::string out = std::exchange(held_, "");
    for (std::string more; !(more = some()).empty();) out += more;
    return out;
  }
  struct Response {
    int status = 0;
    std::string head, body;
    nlohmann::json json() const { return nlohmann::json::parse(body); }
  };
  // One response, whatever its framing.
  Response response() {
    Response r;
    r.head = until("\r\n\r\n");
    if (r.head.size() < 12) return r;
    r.status = std::stoi(r.head.substr(9, 3));
    if (r.head.find("Transfer-Encoding: chunked") != std::string::npos) {
      for (;;) {
        size_t n = std::stoul("0" + until("\r\n"), nullptr, 16);
        std::string chunk = exactly(n + 2);
        if (n == 0) return r;
        r.body += chunk.substr(0, n);
      }
    }
    size_t at = r.head.find("Content-Length: ");
    if (at != std::string::npos) r.body = exactly(std::stoul(r.head.substr(at + 16)));
    return r;
  }
  Response post(const std::string& path, const std::string& body, const std::string& headers = "") {
    send("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
         headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    return response();
  }
  Response get(const std::string& path, const std::string& headers = "") {
    send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n");
    return response();
  }

 private:
  std::string exactly(size_t n) {
    while (held_.size() < n) {
      std::string more = some();
      if (more.empty()) break;
      held_ += more;
    }
    std::string out = held_.substr(0, n);
    held_.erase(0, n);
    return out;
  }
  int fd_;
  bool connected_ = false;
  std::string held_;
};

struct TestServerOptions {
  std::optional<ChatTemplate> chat_template = ChatTemplate::kDeepSeekV31;
  int64_t context = 1024, cache_tokens = 16384;
  ApiOptions api = {};
  HttpLimits limits = {};
  Accounts* accounts = nullptr;
  std::vector<std::string> names = {"tiny"};
  double idle_s = 0;
  ApiStyle style = ApiStyle::kV3;
  int fit = 100;                       // models at a time
  std::function<void()> on_load = {};  // before a model is there
  double drain_s = 5;
  int port = 0;  // 0: any free one
  RunRoutes* runs = nullptr;
};

class TestServer {
 public:
  using Options = TestServerOptions;
  explicit TestServer(Options o = {}) : tokenizer(tiny_tokenizer()) {
    std::vector<ModelSource> sources;
    for (const std::string& name : o.names)
      sources.push_back({name, [this, o, name] { return load(o, name); }});
    models.emplace(std::move(sources), o.idle_s, o.style);
    if (o.idle_s == 0 && o.names.size() == 1) {  // it stays
      ModelPool::Pin pin = models->find("tiny");
      model = pin->model.get();
      engine = pin->engine.get();
    }
    o.api.loopback = o.accounts == nullptr;
    api.emplace(*models, o.accounts, o.api);
    api->show_runs(o.runs);
    http.emplace(HttpServerOptions{.port = o.port, .limits = o.limits, .drain_s = o.drain_s}, *api);
    port = http->port();
    thread_ = std::thread([this, runs = o.runs] {
      http->run([runs] {
        if (runs) runs->tick();
        return false;
      });
    });
  }
  ~TestServer() { stop(); }
  void stop() {
    if (!thread_.joinable()) return;
    http->stop();
    thread_.join();
    api->stop();
  }
  // Waits until the engine has nothing to do; false: not within ten seconds.
  bool idle() {
    for (int i = 0; i < 1000; ++i) {
      EngineThread::Stats s = models->stats();
      if (s.running + s.waiting == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  std::atomic<int> loaded_models{0};
  Tokenizer tokenizer;
  int port = 0;
  std::optional<ModelPool> models;
  ServedModel* model = nullptr;  // of the only one
  EngineThread* engine = nullptr;
  std::optional<Api> api;
  std::optional<HttpServer> http;

 private:
  struct Weights {
    std::unique_ptr<Device> dev = make_device("cpu");
    Model model;
    std::atomic<int>& count;
    Weights(const ModelConfig& c, std::atomic<int>& count) : model(c), count(count) { ++count; }
    ~Weights() { --count; }
  };
  std::unique_ptr<ModelHost> load(const Options& o, const std::string& name) {
    if (o.on_load) o.on_load();
    if (loaded_models >= o.fit) throw OutOfMemory(Error("memory", "there is none"));
    auto w = std::make_shared<Weights>(tiny_moe_config(tokenizer.vocab_size()), loaded_models);
    w->model.init(DType::kF32, 3, false);
    auto host = std::make_unique<ModelHost>();
    host->owner = w;
    host->model = std::make_unique<ServedModel>(*w->dev, w->model, DType::kF32, tokenizer,
                                                o.chat_template, name, o.context, o.style);
    host->engine = std::make_unique<EngineThread>(*w->dev, w->model, DType::kF32, o.context,
                                                  CacheOptions{.tokens = o.cache_tokens});
    return host;
  }
  std::thread thread_;
};

}  // namespace wels
