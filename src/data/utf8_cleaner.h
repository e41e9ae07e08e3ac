// Utf8Cleaner: bytes in pieces of any size → well-formed UTF-8 for the tokeniser. A run of
// ill-formed bytes or NULs becomes one U+FFFD and is counted; "\r\n" becomes "\n"; a byte order
// mark at the start is dropped. A character cut in two by a chunk's end waits for the next chunk.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace wels {

class Utf8Cleaner {
 public:
  // Appends the clean text of `bytes` to `out`. at_end: nothing follows, so what waits is
  // ill-formed.
  void append(std::string_view bytes, bool at_end, std::string& out);
  int64_t bad_bytes() const { return bad_bytes_; }
  int64_t nul_bytes() const { return nul_bytes_; }  // part of bad_bytes

 private:
  std::string waiting_;
  bool started_ = false, in_bad_run_ = false;
  int64_t bad_bytes_ = 0, nul_bytes_ = 0;
};

}  // namespace wels
