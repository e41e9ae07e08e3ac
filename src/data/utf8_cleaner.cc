#include "data/utf8_cleaner.h"

#include "text/unicode.h"

namespace wels {
namespace {

// How many bytes the character that starts with `lead` has if it is well-formed.
size_t announced_size(uint8_t lead) {
  if (lead >= 0xF0) return 4;
  if (lead >= 0xE0) return 3;
  return lead >= 0xC0 ? 2 : 1;
}

}  // namespace

void Utf8Cleaner::append(std::string_view bytes, bool at_end, std::string& out) {
  std::string joined;
  if (!waiting_.empty()) {
    joined = std::move(waiting_);
    joined += bytes;
    bytes = joined;
    waiting_.clear();
  }
  if (!started_) {
    constexpr std::string_view kMark = "\xEF\xBB\xBF";
    if (bytes.size() < kMark.size() && !at_end) {
      waiting_ = bytes;
      return;
    }
    started_ = true;
    if (bytes.starts_with(kMark)) bytes.remove_prefix(kMark.size());
  }
  const auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
  const auto* end = p + bytes.size();
  while (p < end) {
    const uint8_t* clean = p;  // copy ASCII in runs: most bytes of most texts
    while (p < end && *p < 0x80 && *p != 0 && *p != '\r') ++p;
    if (p > clean) {
      out.append(reinterpret_cast<const char*>(clean), static_cast<size_t>(p - clean));
      in_bad_run_ = false;
      continue;
    }
    bool unfinished =
        static_cast<size_t>(end - p) < announced_size(*p) || (*p == '\r' && p + 1 == end);
    if (unfinished && !at_end) {
      waiting_.assign(reinterpret_cast<const char*>(p), static_cast<size_t>(end - p));
      return;
    }
    if (*p == '\r') {
      if (p + 1 == end || p[1] != '\n') out += '\r';
      in_bad_run_ = false;
      ++p;
      continue;
    }
    Char c = read_char(p, end);
    if (c.code == kBadByte || c.code == 0) {
      bad_bytes_ += 1;
      nul_bytes_ += c.code == 0;
      if (!in_bad_run_) out += "\xEF\xBF\xBD";
      in_bad_run_ = true;
    } else {
      out.append(reinterpret_cast<const char*>(p), c.size);
      in_bad_run_ = false;
    }
    p += c.size;
  }
}

}  // namespace wels
