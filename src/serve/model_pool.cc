#include "serve/model_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/threads.h"
#include "formats/json.h"
#include "serve/api_error.h"

namespace wels {

// Everything but name and open under the pool's mutex.
struct ModelPool::Entry {
  std::string name;
  std::function<std::unique_ptr<ModelHost>()> open;
  std::unique_ptr<ModelHost> host;
  int64_t users = 0;
  double used_s = 0;  // when the last user left
};

namespace {

// Whoever has its answer lets go of the model a moment later.
constexpr double kPatience = 1;  // seconds

void add(EngineThread::Stats& to, const EngineThread::Stats& s) {
  to.timing += s.timing;
  to.steps += s.steps;
  to.running += s.running;
  to.waiting += s.waiting;
  to.available_tokens += s.available_tokens;
}

}  // namespace

ModelPool::ModelPool(std::vector<ModelSource> sources, double idle_s, ApiStyle style)
    : mutex_(std::make_shared<std::mutex>()),
      idle_s_(sources.size() > 1 ? idle_s : 0),
      style_(style) {
  for (ModelSource& s : sources) {
    entries_.push_back(std::make_shared<Entry>());
    entries_.back()->name = std::move(s.name);
    entries_.back()->open = std::move(s.open);
  }
  Entry& first = *entries_.at(0);
  first.host = first.open();
  first.used_s = monotonic_seconds();
  context_ = first.host->model->context();
  config_ = first.host->model->model().config();
  thread_ = make_thread([this] { run(); });
}

void ModelPool::stop() {
  {
    std::lock_guard lock(*mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
  std::deque<Wanted> left;
  {
    std::lock_guard lock(*mutex_);
    std::swap(left, wanted_);
  }
  for (Wanted& w : left) w.ready(nullptr, std::make_exception_ptr(being_stopped()));
}

void ModelPool::drain() const {
  std::vector<EngineThread*> engines;
  {
    std::lock_guard lock(*mutex_);
    CHECK(stop_);  // or one could be unloaded meanwhile
    for (const auto& e : entries_) {
      if (e->host) engines.push_back(e->host->engine.get());
    }
  }
  for (EngineThread* engine : engines) engine->drain();
}

std::vector<std::string> ModelPool::names() const {
  std::vector<std::string> out;
  if (style_ == ApiStyle::k2026) out.push_back(kFlashName);
  for (const char* mode : {kChatName, kReasonerName}) out.push_back(mode);
  for (const auto& e : entries_) out.push_back(e->name);
  return out;
}

const std::string& ModelPool::first_name() const { return entries_[0]->name; }

void ModelPool::require_name(const std::string& name) const {
  std::vector<std::string> all = names();
  if (std::find(all.begin(), all.end(), name) != all.end()) return;
  std::string last = all.back();
  all.pop_back();
  throw invalid_request(
      fmt::format("The supported API model names are {} or {}, but you passed {}.",
                  fmt::join(all, ", "), last, printable(name)));
}

std::shared_ptr<ModelPool::Entry> ModelPool::entry(const std::string& name) const {
  for (const auto& e : entries_) {
    if (e->name == name) return e;
  }
  return entries_[0];
}

// With the mutex held.
ModelPool::Pin ModelPool::pin(const std::shared_ptr<Entry>& e) {
  ++e->users;
  return Pin(e->host.get(), [e, mutex = mutex_](const ModelHost*) {
    std::lock_guard lock(*mutex);
    --e->users;
    e->used_s = monotonic_seconds();
  });
}

ModelPool::Pin ModelPool::find(const std::string& name) {
  std::shared_ptr<Entry> e = entry(name);
  std::lock_guard lock(*mutex_);
  return e->host ? pin(e) : nullptr;
}

void ModelPool::load(const std::string& name, Ready ready) {
  bool late;
  {
    std::lock_guard lock(*mutex_);
    late = stop_;
    if (!late) wanted_.push_back({entry(name), std::move(ready)});
  }
  if (late) return ready(nullptr, std::make_exception_ptr(being_stopped()));
  changed_.notify_one();
}

void ModelPool::run() {
  for (;;) {
    Wanted next;
    {
      std::unique_lock lock(*mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(500),
                        [&] { return stop_ || !wanted_.empty(); });
      if (stop_) return;
      if (!wanted_.empty()) {
        next = std::move(wanted_.front());
        wanted_.pop_front();
      }
    }
    if (next.entry) load_one(next.entry, next.ready);
    if (idle_s_ > 0) unload(idle_s_);
  }
}

void ModelPool::load_one(const std::shared_ptr<Entry>& e, const Ready& ready) {
  Pin made;
  std::exception_ptr failed;
  {
    std::lock_guard lock(*mutex_);
    if (e->host) made = pin(e);
  }
  double give_up = monotonic_seconds() + kPatience;
  while (!made && !failed) {
    try {
      std::unique_ptr<ModelHost> host = e->open();
      log_info("{} is loaded", e->name);
      std::lock_guard lock(*mutex_);
      e->host = std::move(host);
      made = pin(e);
    } catch (const OutOfMemory& error) {
      if (unload(0)) continue;
      if (monotonic_seconds() < give_up) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        continue;
      }
      log_warn("{} does not fit beside the models in use: {}", e->name, error.what());
      failed = std::make_exception_ptr(overloaded(
          fmt::format("There is no memory for {} beside the models in use", e->name), 30));
    } catch (const std::exception& error) {
      log_warn("{} cannot be loaded: {}", e->name, error.what());
      failed = std::make_exception_ptr(
          server_error(fmt::format("The model {} cannot be loaded", e->name)));
    }
  }
  ready(std::move(made), failed);
}

// The one that has been idle longest, and for so long; false: there is none.
bool ModelPool::unload(double least_idle_s) {
  std::unique_ptr<ModelHost> host;
  std::shared_ptr<Entry> oldest;
  {
    std::lock_guard lock(*mutex_);
    for (const auto& e : entries_) {
      if (!e->host || e->users > 0 || monotonic_seconds() - e->used_s < least_idle_s) continue;
      if (!oldest || e->used_s < oldest->used_s) oldest = e;
    }
    if (!oldest) return false;
    host = std::move(oldest->host);
    EngineThread::Stats s = host->engine->stats();
    s.running = s.waiting = s.available_tokens = 0;
    add(gone_, s);
  }
  host.reset();
  log_info("{} is unloaded", oldest->name);
  return true;
}

EngineThread::Stats ModelPool::stats() const {
  std::lock_guard lock(*mutex_);
  EngineThread::Stats out = gone_;
  for (const auto& e : entries_) {
    if (e->host) add(out, e->host->engine->stats());
  }
  return out;
}

int64_t ModelPool::users(const std::string& name) const {
  std::shared_ptr<Entry> e = entry(name);
  std::lock_guard lock(*mutex_);
  return e->users;
}

int64_t ModelPool::loaded() const {
  std::lock_guard lock(*mutex_);
  return std::count_if(entries_.begin(), entries_.end(),
                       [](const auto& e) { return e->host != nullptr; });
}

}  // namespace wels
