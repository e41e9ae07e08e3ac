// StopStrings: text that comes piece by piece, up to the first of some strings. What may become one
// is held back.
#pragma once
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stop) : stop_(std::move(stop)) {
    std::erase(stop_, "");
  }

  // What of the text so far can be shown now. After a stop string nothing comes any more.
  std::string push(std::string_view more) { return take(more, false); }
  std::string finish() { return take("", true); }
  bool stopped() const { return !found_.empty(); }
  bool holds() const { return !held_.empty(); }
  const std::string& found() const { return found_; }  // the stop string that was complete

 private:
  std::string take(std::string_view more, bool last) {
    if (stopped()) return "";
    held_ += more;
    size_t cut = std::string::npos, keep = 0;
    for (const std::string& s : stop_) {
      if (size_t at = held_.find(s); at < cut) {
        cut = at;
        found_ = s;
      }
      // The longest end of what is held that may become the stop string.
      for (size_t n = std::min(s.size() - 1, held_.size()); n > keep; --n) {
        if (held_.compare(held_.size() - n, n, s, 0, n) == 0) keep = n;
      }
    }
    size_t n = stopped() ? cut : last ? held_.size() : held_.size() - keep;
    std::string out = held_.substr(0, n);
    held_.erase(0, stopped() ? held_.size() : n);
    return out;
  }
  std::vector<std::string> stop_;
  std::string held_, found_;
};

}  // namespace wels
