// LineInput: lines from a terminal, with editing and a history (libedit), or from a pipe or file.
#pragma once
#include <memory>
#include <string>

namespace wels {

class LineInput {
 public:
  LineInput();  // a terminal: standard input and output both are one
  ~LineInput();
  LineInput(const LineInput&) = delete;

  bool is_terminal() const { return editor_ != nullptr; }
  enum class Got { kLine, kInterrupt, kEnd };  // kInterrupt: Ctrl-C in the line
  // The next line without its end. The prompt is shown on a terminal only.
  Got read(const char* prompt, std::string& line);
  // The arrow keys bring it back. Without a terminal nothing happens.
  void remember(const std::string& line);

 private:
  struct Editor;
  std::unique_ptr<Editor> editor_;
};

// A whole input: one line, or several between """ and """ (also after "/set system "). quoted: it
// begins with """. kEnd within """ throws Error.
LineInput::Got read_input(LineInput& input, std::string& text, bool& quoted);

}  // namespace wels
