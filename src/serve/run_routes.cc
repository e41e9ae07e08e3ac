#include "serve/run_routes.h"

#include <fmt/format.h>

#include <charconv>

#include "base/check.h"
#include "base/log.h"
#include "base/progress.h"
#include "serve/api_error.h"
#include "serve/run_numbers.h"

namespace wels {
namespace {

constexpr size_t kPiece = 256 << 10;
constexpr int64_t kFewestPoints = 16, kMostPoints = 100'000;
constexpr double kLooking = 3;  // seconds after its last question that a page still looks
constexpr int kLastTicks = 20;  // two seconds

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

// What the query says of a name; empty: nothing.
std::string_view value_of(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    std::string_view one = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(one.size() + 1, query.size()));
    if (one.starts_with(name) && one.size() > name.size() && one[name.size()] == '=')
      return one.substr(name.size() + 1);
  }
  return {};
}

// after=LINE of the query, or the line that an event stream was broken off at.
int64_t after_of(const HttpRequest& r) {
  if (auto n = number(r.last_event_id)) return *n;
  std::string_view after = value_of(r.query, "after");
  if (after.empty()) return 0;
  if (auto n = number(after)) return *n;
  throw invalid_request("Invalid after: it is the number of a line");
}

HttpResponse lines_head(const char* type) {
  HttpResponse head;
  head.content_type = type;
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Content-Type-Options", "nosniff"}};
  return head;
}

}  // namespace

std::optional<HttpResponse> RunRoutes::respond(const HttpRequest& r,
                                               const std::shared_ptr<HttpExchange>& exchange) {
  std::string_view path = r.path;
  CHECK(owns(path));
  path.remove_prefix(kPath.size());
  if (path.empty() || path == "/") {
    if (*ending_ && last_looks_ == 1) last_looks_ = 2;
    std::string list;
    for (const RunTable::Run& run : table_.scan()) {
      try {
        list += (list.empty() ? "" : ",") + run_json(run, *ending_);
      } catch (const std::exception& e) {  // the others are shown
        log_warn("the run {} cannot be shown: {}", run.folder, e.what());
      }
    }
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
  std::string_view points = value_of(r.query, "points");
  if (!follow && !points.empty())
    return numbers(*folder, value_of(r.query, "after"), points, r.method == "HEAD", exchange);
  HttpResponse head =
      lines_head(follow ? "text/event-stream; charset=utf-8" : "application/x-ndjson");
  int64_t after = after_of(r);
  if (r.method == "HEAD") return head;
  exchange->stream(std::move(head), std::make_shared<LinesSource>(*folder, after, follow, ending_));
  std::lock_guard lock(mutex_);
  followers_.push_back(exchange);
  return std::nullopt;
}

std::optional<HttpResponse> RunRoutes::numbers(const std::string& folder, std::string_view after,
                                               std::string_view points, bool head_only,
                                               const std::shared_ptr<HttpExchange>& exchange) {
  std::optional<int64_t> most = number(points);
  if (!most || *most < kFewestPoints || *most > kMostPoints)
    throw invalid_request(
        fmt::format("Invalid points: a number from {} to {}", kFewestPoints, kMostPoints));
  bool over = *ending_ || !is_running(folder);  // before the lines: behind these none come
  std::optional<RunNumbers> found =
      run_numbers(folder + "/metrics.jsonl", after, static_cast<size_t>(*most));
  if (!found) throw invalid_request("Invalid after: with points it is a Wels-Next of before");
  looked_s_ = monotonic_seconds();
  if (*ending_ && last_looks_ == 0) last_looks_ = 1;
  HttpResponse head = lines_head("application/x-ndjson");
  head.headers.emplace_back("Wels-Next", found->next);
  head.headers.emplace_back("Wels-Reset", found->reset ? "1" : "0");
  head.headers.emplace_back("Wels-Running", over ? "0" : "1");
  if (head_only) return head;
  exchange->stream(std::move(head), std::move(found->body));
  return std::nullopt;
}

// After the end: whether a page that was looking has still to see it.
bool RunRoutes::page_is_coming() {
  if (ticks_at_end_ < 0) ticks_at_end_ = ticks_;
  return monotonic_seconds() - looked_s_ < kLooking && last_looks_ < 2 &&
         ticks_ - ticks_at_end_ < kLastTicks;
}

bool RunRoutes::tick() {
  bool ending = *ending_;
  if (++ticks_ % 5 != 0 && !ending) return false;
  std::lock_guard lock(mutex_);
  std::erase_if(followers_, [](const auto& f) { return f.expired(); });
  for (const auto& f : followers_) {
    if (auto exchange = f.lock()) exchange->wake();
  }
  return ending && !page_is_coming();
}

}  // namespace wels
