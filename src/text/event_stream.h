// EventStream: server-sent events (WHATWG HTML, 9.2.6) from bytes as they come.
#pragma once
#include <string>
#include <string_view>

namespace wels {

class EventStream {
 public:
  // Calls fn(std::string_view data) for every event that is complete now; several data lines are
  // joined by line ends. Names, ids and comments are left out. Pieces may end anywhere.
  template <class Fn>
  void push(std::string_view bytes, Fn&& fn) {
    for (char c : bytes) {
      if (c == '\n' && after_return_) {  // the second half of a line end
        after_return_ = false;
        continue;
      }
      after_return_ = c == '\r';
      if (c != '\n' && c != '\r') {
        line_ += c;
        continue;
      }
      if (!line_.empty()) {
        end_line();
      } else if (has_data_) {
        fn(std::string_view(data_));
        data_.clear();
        has_data_ = false;
      }
      line_.clear();
    }
  }

 private:
  void end_line() {
    std::string_view line = line_;
    constexpr std::string_view kData = "data";
    if (!line.starts_with(kData)) return;
    line.remove_prefix(kData.size());
    if (!line.empty() && line[0] != ':') return;  // another field
    if (!line.empty()) line.remove_prefix(1);
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += line;
    has_data_ = true;
  }
  std::string line_, data_;
  bool has_data_ = false, after_return_ = false;
};

}  // namespace wels
