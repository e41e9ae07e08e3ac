// EngineThread: the engine on a thread of its own. Others hand it work through a mailbox that is
// emptied between two steps; what requests call back runs on the engine's thread.
#pragma once
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/engine.h"

namespace wels {

class EngineThread {
 public:
  // As Engine's constructor; its errors are thrown here.
  EngineThread(Device& dev, Model& model, DType dtype, int64_t context, const CacheOptions& cache);
  ~EngineThread();  // requests that are under way are dropped without a call

  // Runs `work` before the next step.
  void post(std::function<void(Engine&)> work);

  // Runs `work` when the step under way has ended, so that what a step tells its clients is told
  // at once; from other threads than the engine's it runs here and now.
  void after_step(std::function<void()> work);

  // Waits until all that was posted before has run, with what was to run after those steps.
  void drain();

  struct Stats {
    GenerateTiming timing;
    int64_t running = 0, waiting = 0, available_tokens = 0, steps = 0;
  };
  Stats stats() const;  // as of the last step

 private:
  void run();
  Engine engine_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::function<void(Engine&)>> mail_;
  std::vector<std::function<void()>> after_step_;  // the engine's thread only
  Stats stats_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses all the others
};

}  // namespace wels
