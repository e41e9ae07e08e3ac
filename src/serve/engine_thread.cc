#include "serve/engine_thread.h"

namespace wels {

EngineThread::EngineThread(Device& dev, Model& model, DType dtype, int64_t context,
                           const CacheOptions& cache)
    : engine_(dev, model, dtype, context, cache), thread_([this] { run(); }) {}

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

EngineThread::Stats EngineThread::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void EngineThread::run() {
  bool busy = false;
  int64_t steps = 0;
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
    for (auto& work : mail) work(engine_);
    busy = engine_.step();
    ++steps;
    for (auto& work : after_step_) work();
    after_step_.clear();
  }
}

}  // namespace wels
