#include "apps/line_input.h"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <iostream>

#include "base/error.h"

namespace wels {

struct LineInput::Editor {
  EditLine* line = nullptr;
  History* history = nullptr;
  const char* prompt = "";
  bool interrupted = false;

  static Editor& of(EditLine* e) {
    Editor* self = nullptr;
    el_get(e, EL_CLIENTDATA, &self);
    return *self;
  }
  static char* show_prompt(EditLine* e) { return const_cast<char*>(of(e).prompt); }
  static unsigned char interrupt(EditLine* e, int) {
    of(e).interrupted = true;
    return CC_EOF;
  }

  Editor() {
    // libedit sees characters by the locale; one without UTF-8 would lose most of them.
    std::setlocale(LC_CTYPE, "");
    if (std::string(nl_langinfo(CODESET)) != "UTF-8") std::setlocale(LC_CTYPE, "C.UTF-8");
    line = el_init("wels", stdin, stdout, stderr);
    history = history_init();
    if (!line || !history) throw Error("terminal", "cannot be set up for line editing");
    HistEvent event;
    ::history(history, &event, H_SETSIZE, 1000);
    el_set(line, EL_CLIENTDATA, this);
    el_set(line, EL_PROMPT, &show_prompt);
    el_set(line, EL_EDITOR, "emacs");
    el_set(line, EL_HIST, &::history, history);
    el_set(line, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    // Ctrl-C is a key while a line is edited, not a signal.
    el_set(line, EL_SETTY, "-d", "-isig", nullptr);
    el_set(line, EL_ADDFN, "wels-interrupt", "give up the line", &interrupt);
    el_set(line, EL_BIND, "^C", "wels-interrupt", nullptr);
  }
  ~Editor() {
    if (history) history_end(history);
    if (line) el_end(line);
  }
};

LineInput::LineInput() {
  if (::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO)) editor_ = std::make_unique<Editor>();
}
LineInput::~LineInput() = default;

LineInput::Got LineInput::read(const char* prompt, std::string& line) {
  if (!editor_) {
    if (!std::getline(std::cin, line)) return Got::kEnd;
    if (line.ends_with('\r')) line.pop_back();
    return Got::kLine;
  }
  editor_->prompt = prompt;
  editor_->interrupted = false;
  int count = 0;
  const char* text = el_gets(editor_->line, &count);
  if (editor_->interrupted) return Got::kInterrupt;
  if (!text || count <= 0) return Got::kEnd;
  line.assign(text, static_cast<size_t>(count));
  while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
  return Got::kLine;
}

void LineInput::remember(const std::string& line) {
  HistEvent event;
  if (editor_ && !line.empty()) ::history(editor_->history, &event, H_ENTER, line.c_str());
}

LineInput::Got read_input(LineInput& input, std::string& text, bool& quoted) {
  constexpr std::string_view kQuotes = "\"\"\"", kSystem = "/set system ";
  quoted = false;
  LineInput::Got got = input.read(">>> ", text);
  if (got != LineInput::Got::kLine) return got;
  size_t open = text.starts_with(kSystem) ? kSystem.size() : 0;
  if (text.compare(open, kQuotes.size(), kQuotes) != 0) return got;
  text.erase(open, kQuotes.size());
  size_t close;
  while ((close = text.find(kQuotes, open)) == std::string::npos) {
    std::string more;
    got = input.read("... ", more);
    if (got == LineInput::Got::kInterrupt) return got;
    if (got == LineInput::Got::kEnd) throw Error("input", "ends before the closing \"\"\"");
    text += "\n" + more;
  }
  text.erase(close, kQuotes.size());  // what stands behind belongs to it too
  quoted = open == 0;
  return LineInput::Got::kLine;
}

}  // namespace wels
