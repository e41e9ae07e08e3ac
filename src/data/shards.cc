#include "data/shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "data/hash.h"

namespace wels {
namespace {

constexpr char kMagic[8] = {'W', 'E', 'L', 'S', 'T', 'O', 'K', '2'};
constexpr size_t kBlockBytes = 1 << 20;
constexpr uint64_t kMost = uint64_t{1}
                           << 48;  // tokens or documents; keeps the sums below from overflowing
constexpr const char* kAgain = "delete it; it is made again";

struct Header {
  char magic[8];
  uint32_t width;
  int32_t end_of_text;
  uint64_t tokens, documents, text_bytes, vocab, tokenizer_hash, source_hash, checksum;
};
static_assert(sizeof(Header) == 72);

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

uint32_t width_for(int64_t vocab) { return vocab <= 65536 ? 2 : 4; }

template <class T>
uint32_t largest_id(const uint8_t* data, int64_t n) {
  const T* ids = reinterpret_cast<const T*>(data);
  T largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, ids[i]);
  return largest;
}

}  // namespace

TokenShard::TokenShard(const std::string& path, int64_t vocab, uint64_t tokenizer_hash)
    : file_(path) {
  std::span<const uint8_t> bytes = file_.bytes();
  Header h;
  if (bytes.size() < sizeof h) throw Error(path, "is too short for a token shard", kAgain);
  std::memcpy(&h, bytes.data(), sizeof h);
  if (std::memcmp(h.magic, kMagic, 8) != 0)
    throw Error(path, "is no token shard of this version", kAgain);
  if (h.tokenizer_hash != tokenizer_hash || static_cast<int64_t>(h.vocab) != vocab) {
    throw Error(
        path,
        fmt::format("was made with another tokenizer (vocabulary {}, here {})", h.vocab, vocab),
        "delete it, or use the tokenizer it was made with");
  }
  if (h.width != width_for(vocab) || h.tokens > kMost || h.documents > h.tokens ||
      h.text_bytes > kMost * 1024 || h.end_of_text < -1 || h.end_of_text >= vocab) {
    throw Error(path, "has a header that contradicts itself", "it is damaged; delete it");
  }
  uint64_t offsets_at = sizeof h + padded(h.tokens * h.width),
           need = offsets_at + (h.documents + 1) * 8;
  if (need != bytes.size()) {
    throw Error(path, fmt::format("has {} bytes, its header needs {}", bytes.size(), need),
                "it is truncated or damaged; delete it");
  }
  width_ = h.width;
  end_of_text_ = h.end_of_text;
  tokens_ = static_cast<int64_t>(h.tokens);
  documents_ = static_cast<int64_t>(h.documents);
  text_bytes_ = static_cast<int64_t>(h.text_bytes);
  source_hash_ = h.source_hash;
  checksum_ = h.checksum;
  data_ = bytes.data() + sizeof h;
  offsets_ = reinterpret_cast<const int64_t*>(bytes.data() + offsets_at);
  bool ascending = offsets_[0] == 0 && offsets_[documents_] == tokens_;
  for (int64_t d = 0; d < documents_; ++d) ascending &= offsets_[d] < offsets_[d + 1];
  if (!ascending)
    throw Error(path, "has document offsets that do not ascend", "it is damaged; delete it");
  uint32_t largest =
      width_ == 2 ? largest_id<uint16_t>(data_, tokens_) : largest_id<uint32_t>(data_, tokens_);
  if (tokens_ > 0 && largest >= vocab) {
    throw Error(path, fmt::format("holds token {}, the vocabulary has {}", largest, vocab),
                "it is damaged; delete it");
  }
}

void TokenShard::verify() const {
  uint64_t h = 0;
  std::string_view rest = file_.text().substr(sizeof(Header));
  for (size_t i = 0; i < rest.size(); i += kBlockBytes)
    h = hash_bytes(rest.substr(i, kBlockBytes), h);
  if (h != checksum_)
    throw Error(file_.path(), "does not have its checksum", "it is damaged; delete it");
}

ShardWriter::ShardWriter(const std::string& path, int64_t vocab, int32_t end_of_text)
    : file_(path), vocab_(vocab), end_of_text_(end_of_text) {
  CHECK(vocab > 0 && vocab <= INT32_MAX && end_of_text >= -1 && end_of_text < vocab);
  Header later{};
  file_.write(&later, sizeof later);
}

void ShardWriter::flush() {
  checksum_ = hash_bytes(block_, checksum_);
  file_.write(block_);
  block_.clear();
}

void ShardWriter::put(const void* data, size_t size) {
  const char* p = static_cast<const char*>(data);
  while (size > 0) {
    size_t n = std::min(size, kBlockBytes - block_.size());
    block_.append(p, n);
    p += n;
    size -= n;
    if (block_.size() == kBlockBytes) flush();
  }
}

void ShardWriter::put_ids(std::span<const int32_t> ids) {
  for (int32_t id : ids) CHECK(id >= 0 && id < vocab_);
  if (width_for(vocab_) == 2) {
    std::vector<uint16_t> narrow(ids.begin(), ids.end());
    put(narrow.data(), 2 * narrow.size());
  } else {
    put(ids.data(), 4 * ids.size());
  }
  tokens_ += static_cast<int64_t>(ids.size());
}

void ShardWriter::append(std::span<const int32_t> ids, int64_t text_bytes) {
  put_ids(ids);
  text_bytes_ += text_bytes;
}

void ShardWriter::end_document() {
  if (tokens_ == offsets_.back()) return;
  if (end_of_text_ >= 0) put_ids({&end_of_text_, 1});
  offsets_.push_back(tokens_);
}

void ShardWriter::finish(uint64_t tokenizer_hash, uint64_t source_hash) {
  CHECK(tokens_ == offsets_.back());  // the last document was ended
  const uint32_t width = width_for(vocab_);
  const char zeros[8] = {};
  uint64_t id_bytes = static_cast<uint64_t>(tokens_) * width;
  put(zeros, padded(id_bytes) - id_bytes);
  put(offsets_.data(), 8 * offsets_.size());
  if (!block_.empty()) flush();
  Header h{};
  std::memcpy(h.magic, kMagic, 8);
  h.width = width;
  h.end_of_text = end_of_text_;
  h.tokens = static_cast<uint64_t>(tokens_);
  h.documents = offsets_.size() - 1;
  h.text_bytes = static_cast<uint64_t>(text_bytes_);
  h.vocab = static_cast<uint64_t>(vocab_);
  h.tokenizer_hash = tokenizer_hash;
  h.source_hash = source_hash;
  h.checksum = checksum_;
  file_.write_at(0, &h, sizeof h);
  file_.commit();
}

}  // namespace wels
