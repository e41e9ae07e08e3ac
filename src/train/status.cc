#include "train/status.h"

#include <fmt/format.h>

#include "base/progress.h"
#include "text/unicode.h"

namespace wels {
namespace {

constexpr int kLines = 4, kColumns = 74;  // of 80: 4 before, and " …" behind the last line

}  // namespace

std::string status_line(const RunStatus& s) {
  std::string out = fmt::format("step {}/{}  loss {:.4f}  {}", s.step, s.steps, s.loss,
                                human_rate(s.tokens_per_s, "tok"));
  if (s.fraction_of_peak > 0) out += fmt::format("  {:.0f}% peak", 100 * s.fraction_of_peak);
  if (s.step < s.steps) out += fmt::format("  {} left", human_duration(s.left_s));
  if (s.max_violation >= 0) out += fmt::format("  MaxVio {:.2f}", s.max_violation);
  out += s.more;
  if (s.gflops > 0) out += fmt::format("  {:.0f} GFLOP/s", s.gflops);
  return out;
}

std::string sample_lines(int64_t step, std::string_view text, bool dimmed) {
  std::string clean = utf8_lossy(text), out = fmt::format("  sample at step {}:", step), line;
  auto* at = reinterpret_cast<const uint8_t*>(clean.data());
  auto* end = at + clean.size();
  int lines = 0, width = 0;
  auto end_line = [&] {
    if (line.find_first_not_of(' ') != std::string::npos) {
      out += "\n    " + line;
      ++lines;
    }
    line.clear();
    width = 0;
  };
  while (at < end && lines < kLines) {
    Char c = read_char(at, end);
    bool control = c.code < 0x20 || (c.code >= 0x7F && c.code < 0xA0), ends = c.code == '\n';
    int columns = control ? 1 : char_columns(c.code);
    if (ends || width + columns > kColumns) end_line();
    if (ends) ++at;
    if (ends || lines == kLines) continue;
    control ? line += ' ' : line.append(reinterpret_cast<const char*>(at), c.size);
    at += c.size;
    width += columns;
  }
  end_line();
  if (at < end) out += " …";
  return dimmed ? "\x1b[2m" + out + "\x1b[0m" : out;
}

}  // namespace wels
