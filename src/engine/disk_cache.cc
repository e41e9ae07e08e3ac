#include "engine/disk_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "formats/hf_config.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
using Key = DiskCache::Key;

constexpr uint64_t kMagic = 0x31766b736c6577ull;  // "welskv1"
constexpr const char* kSuffix = ".kv";

struct Header {
  uint64_t magic = kMagic;
  Key key{}, before{};
  uint64_t row_bytes = 0, checksum = 0;
  int32_t exact = 0, drafted = 0;
  std::array<int32_t, DiskCache::kPageRows> tokens{};
};

uint64_t mix(uint64_t a, uint64_t b) {
  unsigned __int128 m = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(m) ^ static_cast<uint64_t>(m >> 64);
}

// Two words of state, each of which sees every byte.
class Hash {
 public:
  explicit Hash(const Key& seed = {}) : h_(seed) {}
  void add(uint64_t x) {
    h_ = {mix(h_[0] ^ x ^ 0xa0761d6478bd642full, h_[1] ^ 0xe7037ed1a0b428dbull),
          mix(h_[1] + (x ^ 0x8ebc6af09c88c6e3ull), h_[0] ^ 0x589965cc75374cc3ull)};
  }
  void add(const void* data, size_t size) {
    auto* p = static_cast<const uint8_t*>(data);
    add(size);
    for (uint64_t x; size >= 8; p += 8, size -= 8) {
      std::memcpy(&x, p, 8);
      add(x);
    }
    uint64_t rest = 0;
    std::memcpy(&rest, p, size);
    add(rest);
  }
  void add(const std::string& s) { add(s.data(), s.size()); }
  const Key& key() const { return h_; }

 private:
  Key h_;
};

// Page `page` of a layer: its rows are contiguous.
std::span<uint8_t> page_rows(const KvCache& kv, int64_t layer, int32_t page) {
  Tensor t = kv.pool(layer).row_range(int64_t{page} * DiskCache::kPageRows, DiskCache::kPageRows);
  return {static_cast<uint8_t*>(t.data), static_cast<size_t>(t.bytes())};
}

uint64_t checksum(Header header, const KvCache& kv, int32_t page) {
  header.checksum = 0;
  Hash h;
  h.add(&header, sizeof(header));
  for (int64_t layer = 0; layer < kv.layers(); ++layer) {
    std::span<uint8_t> rows = page_rows(kv, layer, page);
    h.add(rows.data(), rows.size());
  }
  return h.key()[0];
}

}  // namespace

DiskCache::DiskCache(std::string folder, int64_t limit_bytes, Key fingerprint)
    : folder_(std::move(folder)), limit_(limit_bytes), fingerprint_(fingerprint) {
  make_folder(folder_);
  look();
  make_room(0);
}

Key DiskCache::root(const std::string& scope) const {
  Hash h(fingerprint_);
  h.add(scope);
  return h.key();
}

Key DiskCache::next(const Key& before, std::span<const int32_t> tokens) {
  Hash h(before);
  h.add(tokens.data(), tokens.size_bytes());
  return h.key();
}

std::string DiskCache::path(const Key& key) const {
  return fmt::format("{}/{:016x}{:016x}{}", folder_, key[0], key[1], kSuffix);
}

// Files of earlier runs, in the order of their times. What has another kind of name is not ours.
void DiskCache::look() {
  struct Seen {
    fs::file_time_type time;
    Key key;
    int64_t bytes;
  };
  std::vector<Seen> seen;
  std::error_code ec;
  for (fs::directory_iterator it(folder_, ec), end; !ec && it != end; it.increment(ec)) {
    std::string name = it->path().filename().string();
    std::error_code gone;
    if (name.find_first_not_of("0123456789abcdef") != 32) continue;
    if (name.substr(32).starts_with(kSuffix) && name.ends_with(".tmp")) {  // of a killed run
      auto age = fs::file_time_type::clock::now() - it->last_write_time(gone);
      if (!gone && age > std::chrono::hours(1)) fs::remove(it->path(), gone);
    }
    if (name.substr(32) != kSuffix) continue;
    auto bytes = it->file_size(gone);
    if (gone) continue;
    auto time = it->last_write_time(gone);
    if (gone) continue;
    seen.push_back({time,
                    {std::stoull(name.substr(0, 16), nullptr, 16),
                     std::stoull(name.substr(16, 16), nullptr, 16)},
                    static_cast<int64_t>(bytes)});
  }
  if (ec) throw Error(folder_, "cannot read the folder: " + ec.message(), "choose another");
  std::sort(seen.begin(), seen.end(), [](const Seen& a, const Seen& b) {
    return a.time != b.time ? a.time < b.time : a.key < b.key;
  });
  for (const Seen& s : seen) {
    files_[s.key] = {s.bytes, -1, order_.insert(order_.end(), s.key)};
    bytes_ += s.bytes;
  }
}

void DiskCache::use(const Key& key) {
  File& f = files_.at(key);
  order_.splice(order_.end(), order_, f.place);
  std::error_code ignored;
  fs::last_write_time(path(key), fs::file_time_type::clock::now(), ignored);
}

void DiskCache::forget(const Key& key) {
  auto it = files_.find(key);
  if (it == files_.end()) return;
  bytes_ -= it->second.bytes;
  order_.erase(it->second.place);
  files_.erase(it);
}

void DiskCache::make_room(int64_t bytes) {
  while (!order_.empty() && bytes_ + bytes > limit_) {
    Key oldest = order_.front();
    std::error_code ignored;
    fs::remove(path(oldest), ignored);
    forget(oldest);
  }
}

void DiskCache::complain(const std::string& what) {
  if (!complained_) log_warn("{}; going on without (further ones are not reported)", what);
  complained_ = true;
}

std::optional<DiskCache::Rows> DiskCache::load(const Key& key, const Key& before,
                                               std::span<const int32_t> tokens, KvCache& kv,
                                               int32_t page) {
  if (!has(key)) return std::nullopt;
  std::string name = path(key), what;
  std::error_code ec;
  if (!fs::exists(name, ec)) {  // another process has made room, or the folder can't be read
    forget(key);
    if (ec) complain(fmt::format("{}: {}", name, ec.message()));
    return std::nullopt;
  }
  try {
    // Not mapped: a file that is cut off meanwhile must not end the program.
    std::string bytes = read_file(name);
    Header h;
    uint64_t rows = static_cast<uint64_t>(kv.page_bytes());
    if (bytes.size() != sizeof(h) + rows) {
      what = fmt::format("has {} bytes in place of {}", bytes.size(), sizeof(h) + rows);
    } else {
      std::memcpy(&h, bytes.data(), sizeof(h));
      bool ours = h.magic == kMagic && h.key == key && h.before == before && h.row_bytes == rows &&
                  std::equal(tokens.begin(), tokens.end(), h.tokens.begin(), h.tokens.end()) &&
                  h.exact >= 0 && h.exact <= kPageRows && h.drafted >= 0 && h.drafted <= kPageRows;
      const char* from = bytes.data() + sizeof(h);
      for (int64_t layer = 0; ours && layer < kv.layers(); ++layer) {
        std::span<uint8_t> to = page_rows(kv, layer, page);
        std::memcpy(to.data(), from, to.size());
        from += to.size();
      }
      if (ours && checksum(h, kv, page) == h.checksum) {
        use(key);
        files_.at(key).drafted = h.drafted;
        return Rows{h.exact, h.drafted};
      }
      what = ours ? "is damaged: its checksum differs" : "is not a page of this cache";
    }
  } catch (const Error& e) {
    what = e.fact();
  } catch (const std::exception& e) {
    what = e.what();
  }
  forget(key);
  complain(fmt::format("{}: {}", name, what));
  return std::nullopt;
}

void DiskCache::save(const Key& key, const Key& before, std::span<const int32_t> tokens,
                     const Rows& rows, const KvCache& kv, int32_t page) {
  if (!saving_) return;
  if (has(key) && files_.at(key).drafted >= rows.drafted) return use(key);
  forget(key);
  Header h;
  h.key = key;
  h.before = before;
  h.row_bytes = static_cast<uint64_t>(kv.page_bytes());
  h.exact = rows.exact;
  h.drafted = rows.drafted;
  CHECK(tokens.size() == h.tokens.size());
  std::copy(tokens.begin(), tokens.end(), h.tokens.begin());
  h.checksum = checksum(h, kv, page);
  int64_t size = static_cast<int64_t>(sizeof(h)) + kv.page_bytes();
  if (size > limit_) return;
  make_room(size);
  try {
    AtomicFile file(path(key));
    file.write(&h, sizeof(h));
    for (int64_t layer = 0; layer < kv.layers(); ++layer) {
      std::span<uint8_t> part = page_rows(kv, layer, page);
      file.write(part.data(), part.size());
    }
    file.commit(false);
  } catch (const std::exception& e) {
    saving_ = false;
    complain(e.what());
    return;
  }
  files_[key] = {size, rows.drafted, order_.insert(order_.end(), key)};
  bytes_ += size;
  use(key);  // a file's own time is too coarse to tell what was written first
}

Key model_fingerprint(const Device& dev, Model& model, DType dtype, const KvCache& kv) {
  Hash h;
  h.add(std::string(version()) + git_version());
  std::string name = dev.name();  // the number of threads does not change a bit
  h.add(name.substr(0, name.find(',')));
  h.add(static_cast<uint64_t>(dtype) << 8 | static_cast<uint64_t>(kv.pool(0).dtype));
  h.add(static_cast<uint64_t>(kv.layout().width));
  const ModelConfig& c = model.config();
  h.add(to_hf_config(c));
  visit_weights(c, model.weights(), [&](Weight& w, const WeightSpec& s) {
    h.add(s.name);
    for (size_t e = 0; e < w.value.size(); e += std::max<size_t>(1, w.value.size() - 1)) {
      const Tensor& t = w.value[e];
      h.add(static_cast<uint64_t>(t.dtype));
      int64_t bytes = t.bytes(), places = std::min<int64_t>(64, bytes / 16);
      auto* data = static_cast<const uint8_t*>(t.data);
      for (int64_t i = 0; i < places; ++i) h.add(data + bytes / places * i, 16);
    }
    for (const Tensor& t : w.scale)
      h.add(t.data, static_cast<size_t>(std::min<int64_t>(t.bytes(), 256)));
  });
  return h.key();
}

}  // namespace wels
