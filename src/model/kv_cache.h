// KvCache: one row per token and layer in pages of kPageRows rows, so that sequences grow without
// moving. MLA rows are the latent c and the rotated key k^R side by side (r + dr values: V3's 576);
// GQA rows are keys, then values.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "formats/model_config.h"
#include "tensor/batch.h"
#include "tensor/pool.h"

namespace wels {

class KvCache {
 public:
  static constexpr int kPageRows = 64;

  // Room for `max_tokens` tokens in all sequences together (rounded up to pages). dtype: T of the
  // model. Throws Error if the memory can't be had. Layers: blocks and MTP modules.
  KvCache(const ModelConfig& cfg, DType dtype, int64_t max_tokens);
  ~KvCache();

  int32_t add_sequence();  // an empty sequence
  void truncate(int32_t sequence,
                int64_t rows);  // forgets all but the first `rows` tokens; 0 frees its pages
  int64_t length(int32_t sequence) const {
    return sequences_[static_cast<size_t>(sequence)].length;
  }
  int64_t free_tokens() const { return static_cast<int64_t>(free_pages_.size()) * kPageRows; }

  // Makes room for the batch's new rows and returns each row's place in the pool, [n]. Throws Error
  // when the cache is full. Segment::past must be the sequence's length.
  std::vector<int32_t> reserve(const Batch& batch);
  void commit(const Batch& batch);  // the rows are there now

  Tensor pool(int64_t layer) const {
    return pools_[static_cast<size_t>(layer)];
  }  // [pages·kPageRows, width]
  std::span<const int32_t> pages(int32_t sequence) const {
    return sequences_[static_cast<size_t>(sequence)].pages;
  }
  // Places of rows [0, n) of a sequence.
  std::vector<int32_t> places(int32_t sequence, int64_t n) const;
  int64_t bytes() const { return bytes_; }

 private:
  struct Sequence {
    std::vector<int32_t> pages;
    int64_t length = 0;
  };
  std::vector<Tensor> pools_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> free_pages_;
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace wels
