#include "serve/run_routes.h"

#include <fmt/format.h>

#include <charconv>

#include "base/check.h"
#include "serve/api_error.h"

namespace wels {
namespace {

constexpr size_t kPiece = 256 << 10;

// The lines of metrics.jsonl that are there, or with `follow` as events until the run has ended.
class LinesSource : public BodySource {
 public:
  LinesSource(const std::string& folder, int64_t after, bool follow,
              std::shared_ptr<const std::atomic<bool>> ending)
      : folder_(folder),
        reader_(folder + "/metrics.jsonl"),
        follow_(follow),
        ending_(std::move(ending)) {
    reader_.skip(after);
  }
  bool pull(std::string& out) override {
    if (!follow_)
      return reader_.read(kPiece, [&](int64_t, std::string_view line) {
        out += line;
        out += '\n';
      });
    if (reader_.was_cut()) out += "event: reset\ndata: {}\n\n";
    bool more = reader_.read(kPiece, [&](int64_t number, std::string_view line) {
      fmt::format_to(std::back_inserter(out), "id: {}\ndata: {}\n\n", number, line);
    });
    if (more || (!*ending_ && is_running(folder_))) return true;
    // What was written between the two questions.
    if (reader_.read(kPiece, [&](int64_t number, std::string_view line) {
          fmt::format_to(std::back_inserter(out), "id: {}\ndata: {}\n\n", number, line);
        }))
      return true;
    out += "event: end\ndata: {}\n\n";
    return false;
  }
  std::string keep_alive() override { return follow_ ? ": keep-alive\n\n" : ""; }

 private:
  std::string folder_;
  LineReader reader_;
  bool follow_;
  std::shared_ptr<const std::atomic<bool>> ending_;
};

// A whole number, not negative; nothing where it is none.
std::optional<int64_t> number(std::string_view text) {
  int64_t n = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec != std::errc() || end != text.data() + text.size() || n < 0) return std::nullopt;
  return n;
}

// after=LINE of the query, or the line that an event stream was broken off at.
int64_t after_of(const HttpRequest& r) {
  if (auto n = number(r.last_event_id)) return *n;
  std::string_view q = r.query;
  while (!q.empty()) {
    size_t end = std::min(q.find('&'), q.size());
    std::string_view one = q.substr(0, end);
    q.remove_prefix(std::min(end + 1, q.size()));
    if (!one.starts_with("after=")) continue;
    if (auto n = number(one.substr(6))) return *n;
    throw invalid_request("Invalid after: it is the number of a line");
  }
  return 0;
}

}  // namespace

std::optional<HttpResponse> RunRoutes::respond(const HttpRequest& r,
                                               const std::shared_ptr<HttpExchange>& exchange) {
  std::string_view path = r.path;
  CHECK(owns(path));
  path.remove_prefix(kPath.size());
  if (path.empty() || path == "/") {
    std::string list;
    for (const RunTable::Run& run : table_.scan())
      list += (list.empty() ? "" : ",") + run_json(run);
    return fresh_json("[" + list + "]");
  }
  size_t slash = path.find('/', 1);
  if (path[0] != '/' || slash == std::string_view::npos) throw not_found("There is no such run");
  std::string id(path.substr(1, slash - 1));
  std::string_view what = path.substr(slash + 1);
  std::optional<std::string> folder = table_.folder(id);
  if (!folder) throw not_found("There is no such run");
  if (what == "samples") return fresh_json(run_samples_json(*folder));
  if (what == "experts") return fresh_json(run_experts_json(*folder));
  bool follow = what == "events";
  if (!follow && what != "metrics") throw not_found("Nothing of a run has this name");
  HttpResponse head;
  head.content_type = follow ? "text/event-stream; charset=utf-8" : "application/x-ndjson";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Content-Type-Options", "nosniff"}};
  int64_t after = after_of(r);
  if (r.method == "HEAD") return head;
  exchange->stream(std::move(head), std::make_shared<LinesSource>(*folder, after, follow, ending_));
  std::lock_guard lock(mutex_);
  followers_.push_back(exchange);
  return std::nullopt;
}

bool RunRoutes::tick() {
  bool ending = *ending_;
  if (++ticks_ % 5 != 0 && !ending) return false;
  std::lock_guard lock(mutex_);
  std::erase_if(followers_, [](const auto& f) { return f.expired(); });
  for (const auto& f : followers_) {
    if (auto exchange = f.lock()) exchange->wake();
  }
  return ending;
}

}  // namespace wels
