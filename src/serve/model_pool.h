// ModelPool: models by name. Each is loaded when somebody asks for it, with an engine and a thread
// of its own, and unloaded when nobody has for a while or another needs its memory. The first one
// is also deepseek-chat and deepseek-reasoner, two modes of it.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "serve/engine_thread.h"
#include "serve/served_model.h"

namespace wels {

// A loaded model.
struct ModelHost {
  std::shared_ptr<void> owner;  // of device and weights
  std::unique_ptr<ServedModel> model;
  std::unique_ptr<EngineThread> engine;
};

// A model does not fit into the memory that is free now.
struct OutOfMemory : Error {
  explicit OutOfMemory(const Error& e) : Error(e) {}
};

struct ModelSource {
  std::string name;
  // Throws OutOfMemory, or Error where the model can't be used at all.
  std::function<std::unique_ptr<ModelHost>()> open;
};

class ModelPool {
 public:
  // A model that stays loaded while anybody holds it.
  using Pin = std::shared_ptr<const ModelHost>;
  // Exactly one of both is given.
  using Ready = std::function<void(Pin pin, std::exception_ptr failed)>;

  // Loads the first; throws what that throws. idle_s: after which a model of several is unloaded;
  // 0: only where another needs the memory.
  ModelPool(std::vector<ModelSource> sources, double idle_s, ApiStyle style = ApiStyle::kV3);
  ~ModelPool() { stop(); }

  // All names that a request may give. The same where `name` is one of them, else ApiError.
  std::vector<std::string> names() const;
  void require_name(const std::string& name) const;
  const std::string& first_name() const;
  // Of the first model, loaded or not.
  int64_t context() const { return context_; }
  const ModelConfig& config() const { return config_; }

  // Null where it is not loaded now. name: one of names().
  Pin find(const std::string& name);
  // Loads it first, if need be; `ready` is called on the pool's thread, after OutOfMemory only when
  // nothing idle is left to unload. After stop() it fails here and now.
  void load(const std::string& name, Ready ready);
  // No load begins any more, and none is unloaded. Whoever waits for one is told that it failed.
  void stop();
  // After stop(): waits for what the engines' threads were asked to do (EngineThread::drain).
  void drain() const;

  // Of all engines, those that are gone included.
  EngineThread::Stats stats() const;
  int64_t loaded() const;
  int64_t users(const std::string& name) const;  // who hold it now

 private:
  struct Entry;
  std::shared_ptr<Entry> entry(const std::string& name) const;
  Pin pin(const std::shared_ptr<Entry>& e);
  void run();
  void load_one(const std::shared_ptr<Entry>& e, const Ready& ready);
  bool unload(double least_idle_s);

  mutable std::shared_ptr<std::mutex> mutex_;  // pins may outlive the pool
  std::vector<std::shared_ptr<Entry>> entries_;
  double idle_s_;
  ApiStyle style_;
  int64_t context_ = 0;
  ModelConfig config_;
  EngineThread::Stats gone_;
  struct Wanted {
    std::shared_ptr<Entry> entry;
    Ready ready;
  };
  std::deque<Wanted> wanted_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace wels
