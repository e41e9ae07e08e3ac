// Token shards: a tokenised corpus on disk, memory mapped.
//
//   offset    bytes  what (little-endian)
//        0        8  magic "WELSTOK2"
//        8        4  w: bytes per token, 2 for vocabularies up to 65,536, else 4
//       12        4  i32 id that ends every document, -1: nothing does
//       16        8  tokens N
//       24        8  documents D
//       32        8  bytes of source text (UTF-8) behind the tokens
//       40        8  vocabulary: ids are below it
//       48        8  hash of the tokenizer
//       56        8  hash of the source: the corpus and the options it was prepared with
//       64        8  checksum: hash_bytes (hash.h) over all that follows, 1 MiB blocks, chained
//       72      w·N  tokens, then zeros up to a multiple of 8
//        …  8·(D+1)  first token of each document, then N
//
// Written under a temporary name, synced, renamed.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace wels {

// A mapped shard. Opening checks the header, the size, the document table and that every id is
// below the vocabulary (one pass over the tokens at memory speed); it does not compute the
// checksum.
class TokenShard {
 public:
  // vocab: ids of all tokens must be below it; tokenizer_hash: must be the one the shard was made
  // with. Throws Error.
  TokenShard(const std::string& path, int64_t vocab, uint64_t tokenizer_hash);
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  int64_t text_bytes() const { return text_bytes_; }
  uint64_t source_hash() const { return source_hash_; }
  int32_t end_of_text() const { return end_of_text_; }
  // First token of document d, 0 ≤ d ≤ documents(); for d = documents() the number of tokens.
  int64_t document_begin(int64_t d) const { return offsets_[d]; }
  int32_t token(int64_t i) const {
    return width_ == 2 ? reinterpret_cast<const uint16_t*>(data_)[i]
                       : reinterpret_cast<const int32_t*>(data_)[i];
  }
  // Reads the whole file; throws Error if it does not have its checksum.
  void verify() const;

 private:
  MappedFile file_;
  int64_t tokens_ = 0, documents_ = 0, text_bytes_ = 0;
  uint64_t source_hash_ = 0, checksum_ = 0;
  uint32_t width_ = 2;
  int32_t end_of_text_ = -1;
  const int64_t* offsets_ = nullptr;
  const uint8_t* data_ = nullptr;
};

// Writes a shard as documents come, in bounded memory (8 bytes per document stay). Nothing appears
// under its name before finish(). Throws Error on a full or read-only disk.
class ShardWriter {
 public:
  // end_of_text: put after every document; -1: nothing is.
  ShardWriter(const std::string& path, int64_t vocab, int32_t end_of_text);
  // Adds tokens to the present document. text_bytes: the source text they stand for.
  void append(std::span<const int32_t> ids, int64_t text_bytes);
  // Ends the present document; one without any token leaves no trace.
  void end_document();
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  void finish(uint64_t tokenizer_hash, uint64_t source_hash);

 private:
  void put(const void* data, size_t size);
  void put_ids(std::span<const int32_t> ids);
  void flush();
  AtomicFile file_;
  int64_t vocab_, tokens_ = 0, text_bytes_ = 0;
  int32_t end_of_text_;
  std::vector<int64_t> offsets_{0};
  std::string block_;
  uint64_t checksum_ = 0;
};

}  // namespace wels
