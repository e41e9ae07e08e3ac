#include "serve/run_numbers.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "train/run_curves.h"

namespace wels {
namespace {

constexpr int64_t kMark = 256;         // bytes before a place that its checksum is of
constexpr int64_t kPlain = 1 << 20;    // bytes of lines that are sent as they are
constexpr int64_t kPiece = 256 << 10;  // sent at a time
constexpr int64_t kParsed = 1 << 20;   // thinned out at a time: others are served between

class File {
 public:
  explicit File(const std::string& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    struct stat s {};
    if (fd_ >= 0 && ::fstat(fd_, &s) == 0 && S_ISREG(s.st_mode)) size_ = s.st_size;
  }
  File(const File&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  int64_t size() const { return size_; }
  // Up to n bytes; fewer where the file has become shorter.
  std::string read(int64_t at, int64_t n) const {
    std::string out(static_cast<size_t>(std::max<int64_t>(n, 0)), '\0');
    size_t done = 0;
    while (done < out.size()) {
      ssize_t got =
          ::pread(fd_, out.data() + done, out.size() - done, at + static_cast<int64_t>(done));
      if (got <= 0) break;
      done += static_cast<size_t>(got);
    }
    out.resize(done);
    return out;
  }

 private:
  int fd_;
  int64_t size_ = 0;
};

// FNV-1a of the last bytes before a place.
uint64_t mark(const File& f, int64_t at) {
  uint64_t h = 0xcbf29ce484222325;
  int64_t n = std::min(at, kMark);
  for (char c : f.read(at - n, n)) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return h;
}

std::string place(const File& f, int64_t at) { return fmt::format("{:x}-{:x}", at, mark(f, at)); }

struct Place {
  int64_t at = 0;
  uint64_t mark = 0;
};

std::optional<Place> parse_place(std::string_view text) {
  Place p;
  size_t dash = text.find('-');
  if (dash == std::string_view::npos || dash > 15) return std::nullopt;
  const char *begin = text.data(), *middle = begin + dash, *end = begin + text.size();
  auto at = std::from_chars(begin, middle, p.at, 16);
  auto sum = std::from_chars(middle + 1, end, p.mark, 16);
  if (at.ec != std::errc() || at.ptr != middle || sum.ec != std::errc() || sum.ptr != end ||
      p.at < 0)
    return std::nullopt;
  return p;
}

// The end of the last whole line between `from`, where one begins, and the end of the file.
int64_t lines_end(const File& f, int64_t from) {
  for (int64_t end = f.size(); end > from;) {
    int64_t begin = std::max(from, end - kPiece);
    size_t newline = f.read(begin, end - begin).rfind('\n');
    if (newline != std::string::npos) return begin + static_cast<int64_t>(newline) + 1;
    end = begin;
  }
  return from;
}

class PlainLines : public BodySource {
 public:
  PlainLines(std::shared_ptr<File> f, int64_t at, int64_t end)
      : file_(std::move(f)), at_(at), end_(end) {}
  bool pull(std::string& out) override {
    std::string piece = file_->read(at_, std::min(end_ - at_, kPiece));
    at_ += static_cast<int64_t>(piece.size());
    out += piece;
    return !piece.empty() && at_ < end_;
  }
  std::string keep_alive() override { return ""; }

 private:
  std::shared_ptr<File> file_;
  int64_t at_, end_;
};

class ThinnedLines : public BodySource {
 public:
  ThinnedLines(std::shared_ptr<File> f, int64_t at, int64_t end, size_t points)
      : file_(std::move(f)), at_(at), end_(end), curves_(points) {}
  bool pull(std::string& out) override {
    std::string piece = file_->read(at_, std::min(end_ - at_, kParsed));
    at_ += static_cast<int64_t>(piece.size());
    rest_ += piece;
    size_t done = 0;
    for (size_t end; (end = rest_.find('\n', done)) != std::string::npos; done = end + 1) {
      StepMetrics m;
      if (parse_json_line(std::string_view(rest_).substr(done, end - done), &m))
        curves_.add(std::move(m));
    }
    rest_.erase(0, done);
    if (!piece.empty() && at_ < end_) {
      out += '\n';  // an empty line: it goes on
      return true;
    }
    for (const StepMetrics& m : curves_.lines()) out += to_json_line(m) + '\n';
    return false;
  }
  std::string keep_alive() override { return "\n"; }

 private:
  std::shared_ptr<File> file_;
  int64_t at_, end_;
  std::string rest_;
  RunCurves curves_;
};

}  // namespace

std::optional<RunNumbers> run_numbers(const std::string& path, std::string_view after,
                                      size_t points) {
  auto file = std::make_shared<File>(path);
  RunNumbers out;
  int64_t from = 0;
  if (!after.empty()) {
    std::optional<Place> p = parse_place(after);
    if (!p) return std::nullopt;
    out.reset = p->at > file->size() || mark(*file, p->at) != p->mark;
    if (!out.reset) from = p->at;
  }
  int64_t end = lines_end(*file, from);
  out.next = place(*file, end);
  if (end - from <= kPlain)
    out.body = std::make_shared<PlainLines>(std::move(file), from, end);
  else
    out.body = std::make_shared<ThinnedLines>(std::move(file), from, end, points);
  return out;
}

}  // namespace wels
