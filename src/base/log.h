// Log lines for people, on stderr: information and warnings of long work. spdlog does the work
// behind this interface. The terminal is one per process, so this is too; a live status line
// (base/progress.h) is cleared before a log line is written and drawn again after it. Errors are
// not logged but thrown (base/error.h).
#pragma once
#include <fmt/format.h>

#include <string_view>

namespace wels {

enum class LogLevel { kDebug, kInfo, kWarn, kOff };

// Lines below the level are dropped. Default: kInfo.
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);
// Writes one line: information as it is, the others with "debug: " or "warning: " in front.
// Thread-safe.
void log_line(LogLevel level, std::string_view text);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (!log_enabled(LogLevel::kDebug)) return;
  log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}

namespace terminal {

bool is_tty();  // stderr is a terminal that understands "\r" and erase-to-end-of-line
int columns();  // its width; 100 where it isn't a terminal
// Shows text as the status line, cut to the width; empty: removes it. Only on a terminal: elsewhere
// nothing happens.
void set_status(std::string_view text);
// Writes a whole line that stays, above the status line. Also where stderr is not a terminal.
void write_line(std::string_view line);

}  // namespace terminal
}  // namespace wels
