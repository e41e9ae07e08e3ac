// Token shards: a tokenised corpus on disk, memory mapped.
//
//   offset 0   8 bytes "WELSTOK1"
//          8   u32 bytes per token (2 for vocabularies up to 65,536, else 4); u32 zero
//         16   u64 tokens, u64 documents, u64 text bytes, u64 vocabulary, u64 hash of the tokenizer, u64 hash of the source
//         64   u64 first token of each document, documents + 1 entries (the last: tokens)
//         ...  the tokens; every document ends with the end-of-text token
// All little endian. Written under a temporary name, synced, renamed.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace wels {

// A mapped shard. Opening checks the header, the size, and that document offsets ascend.
class TokenShard {
 public:
  // vocab: ids of all tokens must be below it; tokenizer_hash: must be the one the shard was made with. Throws Error.
  TokenShard(const std::string& path, int64_t vocab, uint64_t tokenizer_hash);
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  int64_t text_bytes() const { return text_bytes_; }
  uint64_t source_hash() const { return source_hash_; }
  int64_t document_begin(int64_t d) const { return offsets_[d]; }
  int32_t token(int64_t i) const {
    return width_ == 2 ? reinterpret_cast<const uint16_t*>(data_)[i] : reinterpret_cast<const int32_t*>(data_)[i];
  }

 private:
  MappedFile file_;
  int64_t tokens_ = 0, documents_ = 0, text_bytes_ = 0;
  uint64_t source_hash_ = 0;
  uint32_t width_ = 2;
  const int64_t* offsets_ = nullptr;
  const uint8_t* data_ = nullptr;
};

// Gathers documents and writes a shard.
class ShardWriter {
 public:
  ShardWriter(int64_t vocab, int32_t end_of_text) : vocab_(vocab), end_(end_of_text) {}
  void add(std::span<const int32_t> ids, int64_t text_bytes);
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }
  int64_t documents() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  void write(const std::string& path, uint64_t tokenizer_hash, uint64_t source_hash) const;

 private:
  int64_t vocab_;
  int32_t end_;
  int64_t text_bytes_ = 0;
  std::vector<int32_t> ids_;
  std::vector<int64_t> offsets_{0};
};

// How documents are divided: by a hash of each one (about `share` of them validate), or the last `share` of the characters of
// the whole corpus (nanoGPT's way; what kAuto takes for fewer than 50 documents).
struct SplitRule {
  enum class Kind { kAuto, kHash, kTail } kind = Kind::kAuto;
  double share = 0.01;
};

// Tokenises documents (in parallel) into out/train.tokens and out/validation.tokens, unless they are there already with the same
// source, tokenizer and rule. encode: thread-safe. Returns true if it had to work.
using Encoder = std::function<void(std::string_view text, std::vector<int32_t>& ids)>;
bool prepare_shards(const std::vector<std::string>& documents, const Encoder& encode, int64_t vocab, int32_t end_of_text,
                    uint64_t tokenizer_hash, SplitRule rule, const std::string& out);

}  // namespace wels
