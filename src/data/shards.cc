#include "data/shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace wels {
namespace {

constexpr char kMagic[8] = {'W', 'E', 'L', 'S', 'T', 'O', 'K', '1'};

struct Header {
  char magic[8];
  uint32_t width, zero;
  uint64_t tokens, documents, text_bytes, vocab, tokenizer_hash, source_hash;
};
static_assert(sizeof(Header) == 64);

bool is_validation(const std::string& document, double share) {
  return static_cast<double>(hash_name(document) >> 11) * 0x1p-53 < share;
}

}  // namespace

TokenShard::TokenShard(const std::string& path, int64_t vocab, uint64_t tokenizer_hash) : file_(path) {
  std::span<const uint8_t> bytes = file_.bytes();
  Header h;
  if (bytes.size() < sizeof h) throw Error(path, "is too short for a token shard", "delete it; it is made again");
  std::memcpy(&h, bytes.data(), sizeof h);
  if (std::memcmp(h.magic, kMagic, 8) != 0 || (h.width != 2 && h.width != 4)) {
    throw Error(path, "is no token shard of this version", "delete it; it is made again");
  }
  if (h.tokenizer_hash != tokenizer_hash) {
    throw Error(path, "was made with another tokenizer", "delete it, or use the tokenizer it was made with");
  }
  unsigned __int128 need = sizeof h + (static_cast<unsigned __int128>(h.documents) + 1) * 8 +
                           static_cast<unsigned __int128>(h.tokens) * h.width;
  if (need != bytes.size()) {
    throw Error(path, fmt::format("has {} bytes where its header needs another number", bytes.size()), "it is truncated or damaged; delete it");
  }
  width_ = h.width;
  tokens_ = static_cast<int64_t>(h.tokens);
  documents_ = static_cast<int64_t>(h.documents);
  text_bytes_ = static_cast<int64_t>(h.text_bytes);
  source_hash_ = h.source_hash;
  offsets_ = reinterpret_cast<const int64_t*>(bytes.data() + sizeof h);
  data_ = bytes.data() + sizeof h + static_cast<size_t>(documents_ + 1) * 8;
  bool ascending = offsets_[0] == 0 && offsets_[documents_] == tokens_;
  for (int64_t d = 0; d < documents_; ++d) ascending &= offsets_[d] <= offsets_[d + 1];
  if (!ascending) throw Error(path, "has document offsets that do not ascend", "it is damaged; delete it");
  int32_t largest = 0;
  for (int64_t i = 0; i < tokens_; ++i) largest = std::max(largest, token(i) < 0 ? INT32_MAX : token(i));
  if (largest >= vocab) {
    throw Error(path, fmt::format("holds token {}, the vocabulary has {}", largest, vocab), "use the tokenizer it was made with");
  }
}

void ShardWriter::add(std::span<const int32_t> ids, int64_t text_bytes) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ids_.push_back(end_);
  offsets_.push_back(static_cast<int64_t>(ids_.size()));
  text_bytes_ += text_bytes;
}

void ShardWriter::write(const std::string& path, uint64_t tokenizer_hash, uint64_t source_hash) const {
  Header h{};
  std::memcpy(h.magic, kMagic, 8);
  h.width = vocab_ <= 65536 ? 2 : 4;
  h.tokens = static_cast<uint64_t>(ids_.size());
  h.documents = offsets_.size() - 1;
  h.text_bytes = static_cast<uint64_t>(text_bytes_);
  h.vocab = static_cast<uint64_t>(vocab_);
  h.tokenizer_hash = tokenizer_hash;
  h.source_hash = source_hash;
  AtomicFile out(path);
  out.write(&h, sizeof h);
  out.write(offsets_.data(), offsets_.size() * sizeof(int64_t));
  for (int32_t id : ids_) {
    CHECK(id >= 0 && id < vocab_);
    uint16_t narrow = static_cast<uint16_t>(id);
    out.write(h.width == 2 ? static_cast<const void*>(&narrow) : &id, h.width);
  }
  out.commit();
}

bool prepare_shards(const std::vector<std::string>& documents, const Encoder& encode, int64_t vocab, int32_t end_of_text,
                    uint64_t tokenizer_hash, SplitRule rule, const std::string& out) {
  if (rule.kind == SplitRule::Kind::kAuto) {
    rule = documents.size() < 50 ? SplitRule{SplitRule::Kind::kTail, 0.1} : SplitRule{SplitRule::Kind::kHash, rule.share};
  }
  uint64_t source = hash_name(fmt::format("{} {}", static_cast<int>(rule.kind), rule.share));
  int64_t total = 0;
  for (const std::string& d : documents) {
    source = (source ^ hash_name(d)) * 0x9E3779B97F4A7C15ull;
    total += static_cast<int64_t>(d.size());
  }
  std::string train_path = out + "/train.tokens", validation_path = out + "/validation.tokens";
  if (std::filesystem::exists(train_path) && std::filesystem::exists(validation_path)) {
    try {
      if (TokenShard(train_path, vocab, tokenizer_hash).source_hash() == source &&
          TokenShard(validation_path, vocab, tokenizer_hash).source_hash() == source) {
        return false;
      }
    } catch (const Error&) {  // stale or damaged: made again below
    }
  }
  // Pieces in order: whole documents, or the one that the tail split cuts in two (at a character).
  struct Piece {
    std::string_view text;
    bool validation;
  };
  std::vector<Piece> pieces;
  int64_t cut = total - static_cast<int64_t>(static_cast<double>(total) * rule.share), at = 0;
  for (const std::string& d : documents) {
    int64_t size = static_cast<int64_t>(d.size());
    if (rule.kind == SplitRule::Kind::kHash) {
      pieces.push_back({d, is_validation(d, rule.share)});
    } else if (at + size <= cut || at >= cut) {
      pieces.push_back({d, at >= cut});
    } else {
      size_t here = static_cast<size_t>(cut - at);
      while (here < d.size() && (static_cast<uint8_t>(d[here]) & 0xc0) == 0x80) ++here;
      pieces.push_back({std::string_view(d).substr(0, here), false});
      pieces.push_back({std::string_view(d).substr(here), true});
    }
    at += size;
  }
  if (std::none_of(pieces.begin(), pieces.end(), [](const Piece& p) { return p.validation; })) pieces.back().validation = true;
  std::vector<std::vector<int32_t>> ids(pieces.size());
  parallel_tasks(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    encode(pieces[static_cast<size_t>(i)].text, ids[static_cast<size_t>(i)]);
  });
  ShardWriter train(vocab, end_of_text), validation(vocab, end_of_text);
  for (size_t i = 0; i < pieces.size(); ++i) {
    (pieces[i].validation ? validation : train).add(ids[i], static_cast<int64_t>(pieces[i].text.size()));
    ids[i] = {};
  }
  if (train.documents() == 0) throw Error("corpus", "one document is too little to train and validate on", "give more text");
  make_folder(out);
  train.write(train_path, tokenizer_hash, source);
  validation.write(validation_path, tokenizer_hash, source);
  return true;
}

}  // namespace wels
