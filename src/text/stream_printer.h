// Prints a token stream as it comes: whole UTF-8 characters only, and nothing of a stop string.
#pragma once
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace wels {

class StreamPrinter {
 public:
  using Show = std::function<void(std::string_view)>;  // gets the text piece by piece

  StreamPrinter(const Tokenizer& tokenizer, std::vector<std::string> stop, Show show = to_stdout)
      : decoder_(tokenizer), stop_(std::move(stop)), show_(std::move(show)) {}

  // False: a stop string is complete.
  bool push(int32_t id) { return take(stop_.push(decoder_.push(id))); }
  void finish() {
    if (stop_.stopped()) return;
    take(stop_.push(decoder_.finish()));
    take(stop_.finish());
  }
  const std::string& text() const { return text_; }  // what was printed
  static void to_stdout(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

 private:
  bool take(const std::string& shown) {
    show_(shown);
    text_ += shown;
    return !stop_.stopped();
  }
  StreamDecoder decoder_;
  StopStrings stop_;
  Show show_;
  std::string text_;
};

}  // namespace wels
