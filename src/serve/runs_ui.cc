#include "serve/runs_ui.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "serve/api_error.h"
#include "serve/json_text.h"
#include "serve/page.h"

namespace wels {

std::optional<HttpResponse> RunsHandler::refuse(const HttpRequest& head) {
  // A page elsewhere may have its own name resolve to this machine; it is still its own name.
  if (!names_loopback(head.host))
    return forbidden("The Host header does not name this machine").response();
  if (!head.origin.empty() && !names_loopback(head.origin))
    return forbidden("Pages of other hosts may not read this").response();
  if (head.method != "GET" && head.method != "HEAD") return empty_response(405);
  return std::nullopt;
}

std::optional<HttpResponse> RunsHandler::respond(const HttpRequest& r,
                                                 const std::shared_ptr<HttpExchange>& exchange) {
  if (r.path == "/" || r.path == "/index.html") return page_response(r);
  if (r.path == "/health") return fresh_json(R"({"status":"ok"})");
  if (r.path == "/ui/config.json")
    return fresh_json(
        fmt::format(R"({{"version":{},"mode":"training","models":[],"name":"","context":0,)"
                    R"("auth":false,"search":false,"prices":null,"inside":false,)"
                    R"("experts":0}})",
                    json_string(version())));
  if (RunRoutes::owns(r.path)) return routes_.respond(r, exchange);
  return empty_response(404);
}

void RunsHandler::handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  std::optional<HttpResponse> r;
  try {
    r = respond(request, exchange);
  } catch (const ApiError& e) {
    r = e.response();
  } catch (const std::exception& e) {
    log_warn("ui: {}: {}", request.path, e.what());
    r = server_error("The page's server had an error").response();
  }
  if (r) exchange->respond(std::move(*r));
}

RunsUi::RunsUi(const std::vector<std::string>& folders, int port, bool required)
    : handler_(RunTable(folders, required)),
      server_({.port = port, .limits = {.connections = 256}, .drain_s = 2}, handler_) {
  thread_ = std::thread([this] {
    try {
      server_.run([this] { return handler_.tick(); });
    } catch (const std::exception& e) {
      log_warn("the page's server has ended: {}", e.what());
    }
  });
}

RunsUi::~RunsUi() {
  handler_.end();
  thread_.join();
}

std::string RunsUi::url() const { return fmt::format("http://127.0.0.1:{}/", server_.port()); }

}  // namespace wels
