// ByteStream: the bytes of a file, decompressed as they are read, in bounded memory. What a file is
// (gzip, Zstandard or plain) is told by its first bytes, not by its name. Several gzip members or
// Zstandard frames in a row are one text.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

namespace wels {

class ByteStream {
 public:
  explicit ByteStream(
      const std::string& path);  // throws Error if missing, unreadable or not a regular file
  ~ByteStream();
  ByteStream(ByteStream&&) noexcept;

  // Reads up to `size` decompressed bytes into `out`; 0: the end. Throws Error naming the file
  // where it is truncated or damaged.
  size_t read(char* out, size_t size);
  // Bytes of the file itself taken so far; what progress is counted in.
  int64_t stored_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace wels
