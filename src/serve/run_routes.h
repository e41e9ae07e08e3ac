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
  // Ten times a second: event streams look for new lines. True once end() was called, every stream
  // has been told to send what is left, and a page that looks every second has had its last look
  // (or two seconds to take it). Any one thread.
  bool tick();
  void end() { *ending_ = true; }  // from any thread

 private:
  std::optional<HttpResponse> numbers(const std::string& folder, std::string_view after,
                                      std::string_view points, bool head_only,
                                      const std::shared_ptr<HttpExchange>& exchange);
  bool page_is_coming();

  RunTable table_;
  int ticks_ = 0, ticks_at_end_ = -1;
  std::atomic<double> looked_s_{-1e9};  // when a page asked for numbers
  // What a page has asked for since the end: numbers, and behind them the list.
  std::atomic<int> last_looks_ = 0;
  std::shared_ptr<std::atomic<bool>> ending_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex mutex_;  // of:
  std::vector<std::weak_ptr<HttpExchange>> followers_;
};

}  // namespace wels
