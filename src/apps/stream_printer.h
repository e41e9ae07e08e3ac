// Prints a token stream as it comes: whole UTF-8 characters only, and nothing of a stop string.
#pragma once
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace wels {

class StreamPrinter {
 public:
  using Show = std::function<void(std::string_view)>;  // gets the text piece by piece

  StreamPrinter(const Tokenizer& tokenizer, std::vector<std::string> stop, Show show = to_stdout)
      : decoder_(tokenizer), stop_(std::move(stop)), show_(std::move(show)) {}

  // False: a stop string is complete.
  bool push(int32_t id) { return take(decoder_.push(id), false); }
  void finish() {
    if (!stopped_) take(decoder_.finish(), true);
  }
  const std::string& text() const { return text_; }  // what was printed
  static void to_stdout(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

 private:
  bool take(const std::string& more, bool last) {
    held_ += more;
    size_t cut = std::string::npos, keep = 0;
    for (const std::string& s : stop_) {
      if (s.empty()) continue;
      cut = std::min(cut, held_.find(s));
      // The longest end of what is held that may become the stop string.
      for (size_t n = std::min(s.size() - 1, held_.size()); n > keep; --n) {
        if (held_.compare(held_.size() - n, n, s, 0, n) == 0) keep = n;
      }
    }
    stopped_ = cut != std::string::npos;
    size_t n = stopped_ ? cut : last ? held_.size() : held_.size() - keep;
    show_(std::string_view(held_).substr(0, n));
    text_.append(held_, 0, n);
    held_.erase(0, n);
    return !stopped_;
  }
  StreamDecoder decoder_;
  std::vector<std::string> stop_;
  Show show_;
  std::string held_, text_;
  bool stopped_ = false;
};

}  // namespace wels
