#include "serve/engine_thread.h"

#include <future>

#include "base/log.h"
#include "base/threads.h"

namespace wels {
namespace {

// What others' work throws ends that work alone.
template <class Fn>
void guarded(Fn&& fn) {
  try {
    fn();
  } catch (const std::exception& e) {
    log_warn("work on the engine's thread failed: {}", e.what());
  }
}

}  // namespace

EngineThread::EngineThread(Device& dev, Model& model, DType dtype, int64_t context,
                           const CacheOptions& cache)
    : engine_(dev, model, dtype, context, cache), thread_(make_thread([this] { run(); })) {}

EngineThread::~EngineThread() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void EngineThread::post(std::function<void(Engine&)> work) {
  {
    std::lock_guard lock(mutex_);
    mail_.push_back(std::move(work));
  }
  changed_.notify_one();
}

void EngineThread::after_step(std::function<void()> work) {
  if (std::this_thread::get_id() != thread_.get_id()) return work();
  after_step_.push_back(std::move(work));
}

void EngineThread::drain() {
  auto done = std::make_shared<std::promise<void>>();
  // The second one comes behind all that the first one's step leaves to do.
  post([this, done](Engine&) { post([done](Engine&) { done->set_value(); }); });
  done->get_future().wait();
}

EngineThread::Stats EngineThread::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void EngineThread::run() {
  bool busy = false;
  int64_t steps = 0;
  std::vector<std::function<void()>> said;
  for (;;) {
    std::vector<std::function<void(Engine&)>> mail;
    {
      std::unique_lock lock(mutex_);
      stats_ = {engine_.timing(), engine_.running(), engine_.waiting(), engine_.available_tokens(),
                steps};
      changed_.wait(lock, [&] { return busy || stop_ || !mail_.empty(); });
      if (stop_) return;
      std::swap(mail, mail_);
    }
    for (auto& work : mail) guarded([&] { work(engine_); });
    busy = engine_.step();
    ++steps;
    while (!after_step_.empty()) {  // such work may ask for more
      std::swap(said, after_step_);
      for (auto& work : said) guarded(work);
      said.clear();
    }
  }
}

}  // namespace wels
