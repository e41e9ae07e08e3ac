#include "data/byte_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace wels {
namespace {
constexpr size_t kInputBytes = 256 << 10;
constexpr const char* kDamagedHint = "the file is damaged: copy it again or leave it out";
}  // namespace

struct ByteStream::State {
  enum Kind { kPlain, kGzip, kZstd } kind = kPlain;
  std::string path;
  int fd = -1;
  std::vector<char> input;
  size_t begin = 0, end = 0;  // what of `input` is not used yet
  int64_t stored = 0;
  bool at_end = false;    // the file has no more bytes
  bool in_frame = false;  // inside a gzip member or Zstandard frame: the file must not end here
  z_stream gz{};
  ZSTD_DStream* zstd = nullptr;

  ~State() {
    if (kind == kGzip) inflateEnd(&gz);
    if (zstd) ZSTD_freeDStream(zstd);
    if (fd >= 0) ::close(fd);
  }

  void fill() {
    if (begin < end || at_end) return;
    ssize_t n;
    do {
      n = ::read(fd, input.data(), input.size());
    } while (n < 0 && errno == EINTR);
    if (n < 0) throw Error(path, std::string("cannot read: ") + std::strerror(errno));
    begin = 0;
    end = static_cast<size_t>(n);
    stored += n;
    at_end = n == 0;
  }

  size_t read_plain(char* out, size_t size) {
    size_t n = std::min(size, end - begin);
    std::memcpy(out, input.data() + begin, n);
    begin += n;
    return n;
  }

  size_t read_gzip(char* out, size_t size) {
    gz.next_in = reinterpret_cast<Bytef*>(input.data() + begin);
    gz.avail_in = static_cast<uInt>(end - begin);
    gz.next_out = reinterpret_cast<Bytef*>(out);
    gz.avail_out = static_cast<uInt>(size);
    if (!in_frame) {
      // Between members: zero bytes are padding (tar, tapes), anything else must be a new member.
      while (gz.avail_in > 0 && *gz.next_in == 0) ++gz.next_in, --gz.avail_in;
      if (gz.avail_in > 0) {
        inflateReset(&gz);
        in_frame = true;
      }
    }
    if (in_frame) {
      int rc = inflate(&gz, Z_NO_FLUSH);
      if (rc == Z_STREAM_END) {
        in_frame = false;
      } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
        throw Error(
            path,
            fmt::format("broken gzip data near byte {}: {}",
                        stored - static_cast<int64_t>(gz.avail_in), gz.msg ? gz.msg : "unreadable"),
            kDamagedHint);
      }
    }
    begin = end - gz.avail_in;
    return size - gz.avail_out;
  }

  size_t read_zstd(char* out, size_t size) {
    ZSTD_inBuffer in{input.data(), end, begin};
    ZSTD_outBuffer to{out, size, 0};
    size_t rc = ZSTD_decompressStream(zstd, &to, &in);
    if (ZSTD_isError(rc)) {
      throw Error(path,
                  fmt::format("broken Zstandard data near byte {}: {}",
                              stored - static_cast<int64_t>(end - begin), ZSTD_getErrorName(rc)),
                  kDamagedHint);
    }
    if (in.pos > begin || to.pos > 0)
      in_frame = rc != 0;  // without progress rc asks for the next frame's header
    begin = in.pos;
    return to.pos;
  }
};

ByteStream::ByteStream(const std::string& path) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  s.fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC |
                                  O_NONBLOCK);  // O_NONBLOCK: a pipe without a writer must not hang
  if (s.fd < 0)
    throw Error(path, std::string("cannot open: ") + std::strerror(errno),
                "check the path and its permissions");
  struct stat st;
  if (::fstat(s.fd, &st) != 0 || !S_ISREG(st.st_mode))
    throw Error(path, "not a regular file", "give a file or a folder");
  s.input.resize(kInputBytes);
  s.fill();
  auto starts = [&](std::string_view magic) {
    return s.end >= magic.size() && std::memcmp(s.input.data(), magic.data(), magic.size()) == 0;
  };
  if (starts("\x1f\x8b\x08")) {
    if (inflateInit2(&s.gz, 15 + 16) != Z_OK) throw Error(path, "cannot start the gzip decoder");
    s.kind = State::kGzip;
  } else if (starts("\x28\xb5\x2f\xfd")) {
    s.kind = State::kZstd;
    s.zstd = ZSTD_createDStream();
    if (!s.zstd) throw Error(path, "cannot start the Zstandard decoder");
  }
}

ByteStream::~ByteStream() = default;
ByteStream::ByteStream(ByteStream&&) noexcept = default;

size_t ByteStream::read(char* out, size_t size) {
  State& s = *state_;
  while (size > 0) {
    s.fill();
    size_t n = 0;
    switch (s.kind) {
      case State::kPlain:
        n = s.read_plain(out, size);
        break;
      case State::kGzip:
        n = s.read_gzip(out, size);
        break;
      case State::kZstd:
        n = s.read_zstd(out, size);
        break;
    }
    if (n > 0) return n;
    if (!s.at_end) continue;
    if (s.in_frame)
      throw Error(s.path, fmt::format("truncated after {} bytes", s.stored), kDamagedHint);
    return 0;
  }
  return 0;
}

int64_t ByteStream::stored_bytes() const {
  return state_->stored - static_cast<int64_t>(state_->end - state_->begin);
}

}  // namespace wels
