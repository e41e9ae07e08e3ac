// The inside of the Api: one request in the hands of a worker, and the table of routes.
#pragma once
#include <mutex>

#include "serve/api.h"

namespace wels {

// A body whose source is known later.
class LateSource : public BodySource {
 public:
  void attach(std::shared_ptr<BodySource> source) {
    std::lock_guard lock(mutex_);
    source_ = std::move(source);
  }
  // The body is this text instead.
  void fail(std::string text) {
    std::lock_guard lock(mutex_);
    text_ = std::move(text);
  }
  bool pull(std::string& out) override {
    std::shared_ptr<BodySource> source;
    {
      std::lock_guard lock(mutex_);
      source = source_;
      out += text_;
      if (!text_.empty()) return false;
    }
    return !source || source->pull(out);
  }
  std::string keep_alive() override {
    std::lock_guard lock(mutex_);
    return source_ ? source_->keep_alive() : ": keep-alive\n\n";
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<BodySource> source_;
  std::string text_;
};

// Thrown out of a route: it is run again when its model is loaded.
struct WaitsForModel {};

struct Api::Call {
  HttpRequest request;
  std::shared_ptr<HttpExchange> exchange;
  const Route* route;
  bool beta = false;
  std::optional<Accounts::Caller> caller;
  std::string scope;                 // whose cache and turn
  ModelPool::Pin pin;                // the model that answers, once it is there
  std::exception_ptr failed;         // or why it can't be
  std::shared_ptr<LateSource> late;  // a stream that has begun while the model was loaded
};

struct Api::Route {
  const char* method;
  const char* path;  // without /v1 and /beta; "/models/" also stands for what is below
  Auth auth;
  void (Api::*run)(Call& call);
  const char* summary;
  const char* fields;      // of the body, for the description: "name:type", with ! where required
  bool anthropic = false;  // errors are written that way
};

}  // namespace wels
