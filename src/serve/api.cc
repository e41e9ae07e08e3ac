#include "serve/api.h"

#include <fmt/format.h>
#include <pthread.h>

#include <boost/asio/post.hpp>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/rng.h"
#include "base/version.h"
#include "serve/api_call.h"
#include "serve/api_error.h"
#include "serve/cpu_meter.h"
#include "serve/page.h"

namespace wels {
namespace {

using SteadyClock = std::chrono::steady_clock;

std::string bearer(const HttpRequest& r) {
  constexpr std::string_view kScheme = "Bearer ";
  std::string_view a = r.authorization;
  if (a.starts_with(kScheme)) return std::string(a.substr(kScheme.size()));
  return r.api_key;
}

bool is_json(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  for (char& c : type) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return type == "application/json" ||
         (type.starts_with("application/") && type.ends_with("+json"));
}

double seconds_since(SteadyClock::time_point t) {
  return std::chrono::duration<double>(SteadyClock::now() - t).count();
}

struct Releaser {
  std::function<void()> fn;
  ~Releaser() {
    if (fn) fn();
  }
};

// Of the answers that one request may ask for.
constexpr size_t kMostChoices = 2048, kMostPromptTokens = size_t{1} << 24;

void check_size(const GenerationJob& job) {
  size_t tokens = 0;
  for (const auto& p : job.prompts) tokens += p.size() * static_cast<size_t>(job.n);
  size_t choices = job.prompts.size() * static_cast<size_t>(job.n);
  if (choices > kMostChoices)
    throw invalid_request(fmt::format("Invalid n: {} prompts times {} are more than {} answers",
                                      job.prompts.size(), job.n, kMostChoices));
  if (tokens > kMostPromptTokens)
    throw invalid_request(fmt::format("The prompts, each n times, have {} tokens: more than {}",
                                      tokens, kMostPromptTokens));
}

SteadyClock::time_point in_seconds(double s) {
  return SteadyClock::now() + std::chrono::milliseconds(static_cast<int64_t>(s * 1000));
}

}  // namespace

Api::Api(ModelPool& models, Accounts* accounts, ApiOptions options)
    : models_(models), accounts_(accounts), options_(std::move(options)) {
  boost::asio::post(workers_, [] { pthread_setname_np(pthread_self(), "wels-api"); });
}

void Api::stop() {
  stopping_ = true;
  models_.stop();
  while (metrics_.active > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  workers_.join();
  models_.drain();  // streams are woken after the step that ended them
}

std::string Api::local_path(const std::string& path, bool& beta) {
  std::string_view p = path;
  auto strip = [&](std::string_view prefix) {
    bool there = p.starts_with(prefix) && p.size() > prefix.size() && p[prefix.size()] == '/';
    if (there) p.remove_prefix(prefix.size());
    return there;
  };
  beta = strip("/beta");
  strip("/v1");
  return std::string(p);
}

const Api::Route* Api::find_route(const std::string& method, const std::string& path,
                                  bool* other_method) {
  for (const Route& r : routes()) {
    std::string_view own = r.path;
    bool below = own.ends_with('/') && own.size() > 1 && path.starts_with(own);
    if (path != own && !below) continue;
    if (method == r.method || (method == "HEAD" && std::string_view(r.method) == "GET")) return &r;
    *other_method = true;
  }
  return nullptr;
}

bool Api::from_loopback_page(const std::string& origin) const { return names_loopback(origin); }

std::vector<std::pair<std::string, std::string>> Api::common_headers(const HttpRequest& r) {
  if (r.origin.empty()) return {};
  bool any =
      std::find(options_.origins.begin(), options_.origins.end(), "*") != options_.origins.end();
  bool listed = std::find(options_.origins.begin(), options_.origins.end(), r.origin) !=
                options_.origins.end();
  if (!any && !listed && !from_loopback_page(r.origin)) return {};
  return {{"Access-Control-Allow-Origin", any ? "*" : r.origin}, {"Vary", "Origin"}};
}

std::optional<HttpResponse> Api::refuse(const HttpRequest& head) {
  bool beta = false, other_method = false;
  std::string path = local_path(head.path, beta);
  // A page elsewhere may have its own name resolve to this machine; it is still its own name.
  if (options_.loopback && !names_loopback(head.host))
    return forbidden("The Host header does not name this machine").response();
  if (head.method == "OPTIONS") {
    HttpResponse r = empty_response(204);
    r.headers = {
        {"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
        {"Access-Control-Allow-Headers",
         head.wanted_headers.empty() ? "Authorization, Content-Type" : head.wanted_headers},
        {"Access-Control-Max-Age", "86400"}};
    return r;
  }
  const Route* route = find_route(head.method, path, &other_method);
  std::optional<HttpResponse> refused;
  if (!route) {
    refused = empty_response(other_method ? 405 : 404);
  } else if (accounts_ && route->auth == Auth::kKey && bearer(head).empty()) {
    refused = no_key().response();
  } else if (head.method == "POST" && !is_json(head.content_type)) {
    refused = not_json().response();
  }
  if (refused) metrics_.answered(route ? route->path : "none", refused->status);
  return refused;
}

void Api::handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  Call call;
  bool other = false;
  call.route = find_route(request.method, local_path(request.path, call.beta), &other);
  call.request = std::move(request);
  call.exchange = std::move(exchange);
  if (call.route->run == &Api::health) return run_route(call);  // whatever the workers are at
  boost::asio::post(workers_, [this, call = std::move(call)]() mutable { run_route(call); });
}

void Api::run_route(Call& call) {
  auto refuse = [&](const ApiError& e) {
    call.late ? refuse_late(call, e) : answer_error(call, e);
  };
  try {
    bool local = names_loopback(call.request.peer);
    bool needs =
        call.route->auth == Auth::kKey || (call.route->auth == Auth::kKeyOrLoopback && !local);
    if (accounts_ && needs) {
      std::string key = bearer(call.request);
      if (key.empty()) throw no_key();
      call.caller = accounts_->find(key);
      if (!call.caller) throw wrong_key(key);
      call.scope = std::to_string(call.caller->account);
    }
    (this->*call.route->run)(call);
  } catch (const WaitsForModel&) {
  } catch (const ApiError& e) {
    refuse(e);
  } catch (const Error& e) {
    refuse(invalid_request(e.what()));
  } catch (const std::exception& e) {
    log_warn("{} {}: {}", call.request.method, call.route->path, e.what());
    refuse(server_error("The server had an error while processing your request"));
  }
}

void Api::answer(const Call& call, HttpResponse r) {
  metrics_.answered(call.route->path, r.status);
  call.exchange->respond(std::move(r));
}

void Api::answer_error(const Call& call, const ApiError& e) {
  HttpResponse r = e.response();
  if (call.route->anthropic && r.content_type == "application/json")
    r.body = anthropic_error(r.status, e.message());
  answer(call, std::move(r));
}

void Api::answer_json(const Call& call, std::string body) {
  HttpResponse r;
  r.body = std::move(body);
  answer(call, std::move(r));
}

// The status has gone out with the first sign of life: the error is an event.
void Api::refuse_late(Call& call, const ApiError& e) {
  metrics_.answered(call.route->path, e.response().status);
  bool plain = e.response().content_type != "application/json";
  std::string body = call.route->anthropic ? anthropic_error(e.response().status, e.message())
                     : plain ? error_body(e.message(), "invalid_request_error", "error")
                             : e.response().body;
  call.late->fail((call.route->anthropic ? "event: error\ndata: " : "data: ") + body + "\n\n");
  call.exchange->wake();
}

const ServedModel& Api::model_for(Call& call, const std::string& name, bool stream) {
  models_.require_name(name);
  if (call.failed) std::rethrow_exception(call.failed);
  if (!call.pin) call.pin = models_.find(name);
  if (!call.pin) waits_for_model(call, name, stream);
  return *call.pin->model;
}

void Api::waits_for_model(Call& call, const std::string& name, bool stream) {
  if (metrics_.queued >= options_.queue_limit)
    throw overloaded("The server is overloaded, please try again later", 2);
  if (stream) {
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers = {{"Cache-Control", "no-cache"}};
    call.late = std::make_shared<LateSource>();
    call.exchange->stream(std::move(head), call.late);
  } else {
    call.exchange->expect_wait();
  }
  ++metrics_.queued;
  models_.load(name, [this, call](ModelPool::Pin pin, std::exception_ptr failed) mutable {
    --metrics_.queued;
    call.pin = std::move(pin);
    call.failed = failed;
    boost::asio::post(workers_, [this, call = std::move(call)]() mutable { run_route(call); });
  });
  throw WaitsForModel();
}

ResponseInfo Api::info(const Call& call, const std::string& model) const {
  return {new_uuid(), model, static_cast<int64_t>(unix_seconds()),
          fmt::format("fp_{:016x}_wels_{}", hash_name(call.pin->model->name()), version())};
}

void Api::settle(const Call& call, const Generation& g, SteadyClock::time_point begun) {
  Usage usage = g.usage();
  metrics_.used(usage);
  metrics_.request_s.add(seconds_since(begun));
  metrics_.cancelled += g.cancelled();
  --metrics_.active;
  if (!call.caller) return;
  try {
    accounts_->charge(*call.caller, new_uuid(), call.pin->model->name(), usage);
  } catch (const Error& e) {
    log_warn("a request of key {} was not charged: {}", call.caller->key, e.what());
  }
}

void Api::generate(Call& call, GenerationJob job, const GenerationOptions& o,
                   std::unique_ptr<EventWriter> writer, Whole whole) {
  if (metrics_.queued >= options_.queue_limit)
    throw overloaded("The server is overloaded, please try again later", 2);
  check_size(job);
  ++metrics_.active;  // before stopping_ is read: stop() waits for one of us
  Releaser release{[this] { --metrics_.active; }};
  if (stopping_) throw being_stopped();
  std::shared_ptr<void> ticket = call.caller ? accounts_->begin(*call.caller) : nullptr;
  job.scope = call.scope;
  job.abandon = &stopping_;
  if (!o.user_id.empty()) job.scope += "/" + o.user_id;
  job.speculate = options_.speculate;
  job.cpu_ns = options_.engine_cpu_ns;
  job.start_by = in_seconds(options_.queue_s);
  job.end_by = in_seconds(options_.request_s);
  SteadyClock::time_point begun = SteadyClock::now();
  const ServedModel& model = *call.pin->model;
  auto g = std::make_shared<Generation>(model.tokenizer(), model.shown_tokens(), std::move(job));
  ++metrics_.queued;
  release.fn = nullptr;  // settle() counts down now
  g->on_started([this, begun] {
    --metrics_.queued;
    metrics_.first_token_s.add(seconds_since(begun));
  });
  bool streams = writer != nullptr;
  std::weak_ptr<Generation> weak = g;
  std::shared_ptr<HttpExchange> exchange = call.exchange;
  if (streams) {
    g->on_changed([exchange, engine = call.pin->engine.get(), sum = options_.engine_cpu_ns] {
      engine->after_step([exchange, sum] {
        CpuMeter meter(sum);
        exchange->wake();
      });
    });
  }
  // The late source will keep g, which keeps `call`: it must not be in there.
  std::shared_ptr<LateSource> late = std::move(call.late);
  g->on_ended([this, weak, call, ticket, begun, streams, whole = std::move(whole)]() mutable {
    boost::asio::post(workers_, [this, g = weak.lock(), call, ticket = std::move(ticket), begun,
                                 streams, whole]() mutable {
      settle(call, *g, begun);
      ticket.reset();
      keep_trace(call, *g);  // whoever has seen the end may ask
      g->complete();
      if (streams) {
        call.exchange->wake_at_once();
        return metrics_.answered(call.route->path, 200);
      }
      std::vector<Delta> deltas;
      g->take(deltas);
      if (std::optional<Error> e = g->error()) {
        log_warn("{}: {}", call.route->path, e->what());
        return answer_error(call, generation_error(*e));
      }
      std::vector<Answer> answers = collect_answers(std::move(deltas), g->choices());
      if (call.route->anthropic && answers[0].finish == FinishReason::kInsufficientResource)
        return answer_error(call, out_of_time());  // it has no stop_reason for that
      answer_json(call, whole(answers, *g));
    });
  });
  if (late) {
    late->attach(make_event_source(g, std::move(writer)));
    exchange->wake();
  } else if (streams) {
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers = {{"Cache-Control", "no-cache"}};
    exchange->stream(std::move(head), make_event_source(g, std::move(writer)));
  } else {
    exchange->expect_wait();
  }
  exchange->on_left([weak] {
    if (auto left = weak.lock()) left->cancel();
  });
  call.pin->engine->post([g](Engine& engine) {
    CpuMeter meter(g->job().cpu_ns);
    int choice = 0;
    for (GenerateRequest& r : g->requests()) {
      try {
        engine.submit(std::move(r));
      } catch (const Error& e) {
        g->fail(choice, e);
      } catch (const std::exception& e) {
        g->fail(choice, Error("request", e.what()));
      }
      ++choice;
    }
  });
}

}  // namespace wels
