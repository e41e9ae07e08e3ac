// RunRoutes: /ui/runs and what is below it, over run folders: for `wels ui` and the commands that
// train (runs_ui.h), and for `wels serve --runs`. They only read the folders' files.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "serve/http.h"
#include "serve/run_files.h"

namespace wels {

class RunRoutes {
 public:
  static constexpr std::string_view kPath = "/ui/runs";
  static bool owns(std::string_view path) {
    return path == kPath || (path.starts_with(kPath) && path[kPath.size()] == '/');
  }

  explicit RunRoutes(RunTable table) : table_(std::move(table)) {}
  // Answers a GET or HEAD of a path that it owns; nothing: the body is being streamed. Throws
  // ApiError. Always on the same thread.
  std::optional<HttpResponse> respond(const HttpRequest& r,
                                      const std::shared_ptr<HttpExchange>& exchange);
  // Ten times a second: event streams look for new lines. True once end() was called: no run is
  // followed any longer, every stream has been told to send what is left. Any one thread.
  bool tick();
  void end() { *ending_ = true; }  // from any thread

 private:
  RunTable table_;
  int ticks_ = 0;
  std::shared_ptr<std::atomic<bool>> ending_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex mutex_;  // of:
  std::vector<std::weak_ptr<HttpExchange>> followers_;
};

}  // namespace wels
