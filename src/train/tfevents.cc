#include "train/tfevents.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/machine.h"
#include "train/metrics.h"

namespace wels {
namespace {

constexpr const char* kFileVersion = "brain.Event:2";
constexpr size_t kHeaderBytes = 12, kFooterBytes = 4;
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (c & 1 ? 0x82F63B78u : 0);
    table[i] = c;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

// ---- writing ----

template <class T>
void put_fixed(std::string& out, T v) {
  static_assert(std::endian::native == std::endian::little);
  out.append(reinterpret_cast<const char*>(&v), sizeof v);
}

void put_varint(std::string& out, uint64_t v) {
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  out += static_cast<char>(v);
}

void put_key(std::string& out, uint32_t field, WireType type) {
  put_varint(out, field << 3 | type);
}

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event_start(double wall_time, int64_t step) {
  std::string out;
  put_key(out, 1, kFixed64);
  put_fixed(out, wall_time);
  put_key(out, 2, kVarint);
  put_varint(out, static_cast<uint64_t>(step));
  return out;
}

// ---- reading ----

template <class T>
T get_fixed(std::string_view bytes, size_t at) {
  T v;
  std::memcpy(&v, bytes.data() + at, sizeof v);
  return v;
}

// One field of a message. number: the value of a varint, or the bits of a fixed one.
struct Field {
  uint32_t id = 0;
  WireType type = kVarint;
  uint64_t number = 0;
  std::string_view bytes;
};

bool take_varint(std::string_view& in, uint64_t* v) {
  *v = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (in.empty()) return false;
    auto b = static_cast<uint8_t>(in.front());
    in.remove_prefix(1);
    *v |= static_cast<uint64_t>(b & 0x7F) << shift;
    if (b < 0x80) return true;
  }
  return false;
}

std::optional<Field> take_field(std::string_view& in) {
  Field f;
  uint64_t key = 0;
  if (in.empty() || !take_varint(in, &key)) return std::nullopt;
  f.id = static_cast<uint32_t>(key >> 3);
  f.type = static_cast<WireType>(key & 7);
  uint64_t size = 0;
  switch (f.type) {
    case kVarint:
      return take_varint(in, &f.number) ? std::optional(f) : std::nullopt;
    case kFixed64:
      size = 8;
      break;
    case kFixed32:
      size = 4;
      break;
    case kBytes:
      if (!take_varint(in, &size)) return std::nullopt;
      break;
    default:
      return std::nullopt;
  }
  if (size > in.size()) return std::nullopt;
  f.bytes = in.substr(0, size);
  if (f.type != kBytes) std::memcpy(&f.number, f.bytes.data(), size);
  in.remove_prefix(size);
  return f;
}

void parse_value(std::string_view in, TfEvent* event) {
  std::string tag;
  std::optional<float> number;
  while (auto f = take_field(in)) {
    if (f->id == 1 && f->type == kBytes) tag = f->bytes;
    if (f->id == 2 && f->type == kFixed32)
      number = std::bit_cast<float>(static_cast<uint32_t>(f->number));
  }
  if (number) event->scalars.emplace_back(tag, *number);
}

TfEvent parse_event(std::string_view in) {
  TfEvent event;
  while (auto f = take_field(in)) {
    if (f->id == 1 && f->type == kFixed64) event.wall_time = std::bit_cast<double>(f->number);
    if (f->id == 2 && f->type == kVarint) event.step = static_cast<int64_t>(f->number);
    if (f->id == 3 && f->type == kBytes) event.file_version = f->bytes;
    if (f->id != 5 || f->type != kBytes) continue;
    std::string_view summary = f->bytes;
    while (auto value = take_field(summary)) {
      if (value->id == 1 && value->type == kBytes) parse_value(value->bytes, &event);
    }
  }
  return event;
}

// The data of the record at `at`, and *at moved behind it; nothing if it is cut off or damaged.
std::optional<std::string_view> take_record(std::string_view file, size_t* at) {
  size_t left = file.size() - *at;
  if (left < kHeaderBytes + kFooterBytes) return std::nullopt;
  auto n = get_fixed<uint64_t>(file, *at);
  if (masked_crc32c(file.substr(*at, 8)) != get_fixed<uint32_t>(file, *at + 8)) return std::nullopt;
  if (n > left - kHeaderBytes - kFooterBytes) return std::nullopt;
  std::string_view data = file.substr(*at + kHeaderBytes, n);
  if (masked_crc32c(data) != get_fixed<uint32_t>(file, *at + kHeaderBytes + n)) return std::nullopt;
  *at += kHeaderBytes + n + kFooterBytes;
  return data;
}

[[noreturn]] void fail(const std::string& path, const std::string& doing) {
  throw Error(path, doing + ": " + std::strerror(errno),
              "check the folder's permissions and free space");
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = ~0u;
  for (char b : bytes) c = kCrcTable[(c ^ static_cast<uint8_t>(b)) & 0xFF] ^ (c >> 8);
  return ~c;
}

uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

std::vector<TfEvent> read_tfevents(const std::string& path, int64_t* valid_bytes) {
  MappedFile file(path);
  std::vector<TfEvent> out;
  size_t at = 0;
  while (auto data = take_record(file.text(), &at)) out.push_back(parse_event(*data));
  if (valid_bytes) *valid_bytes = static_cast<int64_t>(at);
  return out;
}

TfEventsWriter::TfEventsWriter(const std::string& folder, int64_t keep_steps)
    : path_(folder + "/events.out.tfevents.wels") {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(path_, "cannot open");
  if (keep_steps >= 0) {
    MappedFile old(path_);
    size_t at = 0;
    while (auto data = take_record(old.text(), &at)) {
      if (parse_event(*data).step > keep_steps) break;
      size_ = static_cast<int64_t>(at);
    }
  }
  if (::ftruncate(fd_, size_) != 0) {
    ::close(fd_);
    fail(path_, "cannot shorten");
  }
  if (size_ > 0) return;
  // TensorBoard counts relative times from this record.
  std::string event = event_start(unix_seconds(), 0);
  put_bytes(event, 3, kFileVersion);
  append(event);
}

TfEventsWriter::~TfEventsWriter() { ::close(fd_); }

void TfEventsWriter::write(int64_t step, double wall_time,
                           std::span<const std::pair<std::string, double>> scalars) {
  std::string summary;
  for (const auto& [tag, v] : scalars) {
    if (tag == metric::kTime) continue;
    std::string value;
    put_bytes(value, 1, tag);
    put_key(value, 2, kFixed32);
    put_fixed(value, static_cast<float>(v));
    put_bytes(summary, 1, value);
  }
  std::string event = event_start(wall_time, step);
  put_bytes(event, 5, summary);
  append(event);
}

void TfEventsWriter::append(const std::string& event) {
  std::string record;
  put_fixed(record, static_cast<uint64_t>(event.size()));
  put_fixed(record, masked_crc32c(record));
  record += event;
  put_fixed(record, masked_crc32c(event));
  for (size_t done = 0; done < record.size();) {
    ssize_t n = ::write(fd_, record.data() + done, record.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int err = errno;
      if (::ftruncate(fd_, size_) != 0) err = errno;  // half a record would hide all later ones
      errno = err;
      fail(path_, "cannot write");
    }
    done += static_cast<size_t>(n);
  }
  size_ += static_cast<int64_t>(record.size());
}

}  // namespace wels
