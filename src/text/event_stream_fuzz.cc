// Server-sent events from anybody: the same events whatever pieces the bytes come in.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "text/event_stream.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  size_t piece = 1 + data[0] % 16;
  std::vector<std::string> whole, parts;
  wels::EventStream a, b;
  a.push(text, [&](std::string_view e) { whole.emplace_back(e); });
  for (size_t i = 0; i < text.size(); i += piece)
    b.push(text.substr(i, piece), [&](std::string_view e) { parts.emplace_back(e); });
  if (whole != parts) std::abort();
  return 0;
}
