// RunsUi: the page over run folders, for whoever trains or has trained. A server of its own on
// loopback with a thread of its own, which only reads the folders' files; whatever happens to it,
// the training goes on.
#pragma once
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "serve/http_server.h"
#include "serve/run_routes.h"

namespace wels {

class RunsHandler : public HttpHandler {
 public:
  explicit RunsHandler(RunTable table) : routes_(std::move(table)) {}
  std::optional<HttpResponse> refuse(const HttpRequest& head) override;
  void handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override;
  std::vector<std::pair<std::string, std::string>> common_headers(const HttpRequest&) override {
    return {};
  }
  bool tick() { return routes_.tick(); }
  void end() { routes_.end(); }

 private:
  std::optional<HttpResponse> respond(const HttpRequest& r,
                                      const std::shared_ptr<HttpExchange>& exchange);
  RunRoutes routes_;
};

class RunsUi {
 public:
  // Listens on 127.0.0.1:port (0: any free one) and serves on a thread of its own. required: every
  // folder must hold a run by now. Throws Error: port in use, no such folder.
  RunsUi(const std::vector<std::string>& folders, int port, bool required);
  // Whoever follows a run gets its last lines and its end first (at most four seconds).
  ~RunsUi();
  std::string url() const;

 private:
  RunsHandler handler_;
  HttpServer server_;
  std::thread thread_;
};

}  // namespace wels
