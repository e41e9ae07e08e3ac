#include "base/log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>

namespace wels {
namespace terminal {
namespace {

struct Screen {
  std::mutex mutex;
  std::string status;  // what the last line shows now, already cut
};

// Never destroyed: a log line may come from a destructor that runs after main.
Screen& screen() {
  static Screen* s = new Screen;
  return *s;
}

void put(std::string_view bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), stderr);
  std::fflush(stderr);
}

// The first `width` characters, counted as code points: a status line that wraps could not be
// erased.
std::string_view cut(std::string_view text, int width) {
  int seen = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    bool continues = (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
    if (!continues && seen++ == width) return text.substr(0, i);
  }
  return text;
}

}  // namespace

bool is_tty() {
  static const bool tty = [] {
    const char* term = std::getenv("TERM");
    return ::isatty(STDERR_FILENO) == 1 && (!term || std::string_view(term) != "dumb");
  }();
  return tty;
}

int columns() {
  winsize size{};
  if (!is_tty() || ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 100;
  return size.ws_col;
}

void set_status(std::string_view text) {
  if (!is_tty()) return;
  Screen& s = screen();
  std::lock_guard lock(s.mutex);
  s.status = cut(text, columns() - 1);
  put("\r" + s.status + "\x1b[K");
}

void write_line(std::string_view line) {
  Screen& s = screen();
  std::lock_guard lock(s.mutex);
  std::string out;
  if (!s.status.empty()) out += "\r\x1b[K";
  out += line;
  if (line.empty() || line.back() != '\n') out += '\n';
  put(out + s.status);
}

}  // namespace terminal

namespace {

class TerminalSink : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    std::string line(text.data(), text.size());
    if (message.level == spdlog::level::warn) {
      line = (terminal::is_tty() ? "\x1b[33mwarning:\x1b[0m " : "warning: ") + line;
    }
    if (message.level == spdlog::level::debug) line = "debug: " + line;
    terminal::write_line(line);
  }
  void flush_() override {}
};

spdlog::logger& logger() {
  static spdlog::logger* l = [] {
    auto sink = std::make_shared<TerminalSink>();
    sink->set_formatter(std::make_unique<spdlog::pattern_formatter>("%v"));
    auto* made = new spdlog::logger("wels", sink);
    made->set_level(spdlog::level::info);
    return made;
  }();
  return *l;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kOff:
      break;
  }
  return spdlog::level::off;
}

}  // namespace

void set_log_level(LogLevel level) { logger().set_level(to_spdlog(level)); }
bool log_enabled(LogLevel level) { return logger().should_log(to_spdlog(level)); }
void log_line(LogLevel level, std::string_view text) {
  logger().log(to_spdlog(level), spdlog::string_view_t(text.data(), text.size()));
}

}  // namespace wels
