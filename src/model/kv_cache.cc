#include "model/kv_cache.h"

#include <fmt/format.h>

#include "base/error.h"

namespace wels {

KvCache::KvCache(const ModelConfig& cfg, DType dtype, int64_t max_tokens) {
  int64_t layers = cfg.num_hidden_layers + cfg.num_nextn_predict_layers;
  int64_t width = cfg.kv_values_per_token();
  int64_t n_pages = (std::max<int64_t>(max_tokens, 1) + kPageRows - 1) / kPageRows;
  int64_t layer_bytes = n_pages * kPageRows * row_bytes(dtype, width);
  bytes_ = layers * layer_bytes;
  memory_ = allocate_host(bytes_);
  for (int64_t l = 0; l < layers; ++l) {
    pools_.emplace_back(static_cast<uint8_t*>(memory_) + l * layer_bytes, dtype,
                        n_pages * kPageRows, width);
  }
  for (int64_t p = n_pages; p-- > 0;) free_pages_.push_back(static_cast<int32_t>(p));
}

KvCache::~KvCache() { free_host(memory_, bytes_); }

int32_t KvCache::add_sequence() {
  sequences_.emplace_back();
  return static_cast<int32_t>(sequences_.size()) - 1;
}

void KvCache::truncate(int32_t sequence, int64_t rows) {
  Sequence& s = sequences_[static_cast<size_t>(sequence)];
  CHECK(rows <= s.length);
  s.length = rows;
  size_t keep = static_cast<size_t>((rows + kPageRows - 1) / kPageRows);
  while (s.pages.size() > keep) {
    free_pages_.push_back(s.pages.back());
    s.pages.pop_back();
  }
}

std::vector<int32_t> KvCache::reserve(const Batch& batch) {
  std::vector<int32_t> places(static_cast<size_t>(batch.rows()));
  for (const Segment& seg : batch.segments) {
    Sequence& s = sequences_[static_cast<size_t>(seg.sequence)];
    CHECK(seg.past == s.length);
    while (static_cast<int64_t>(s.pages.size()) * kPageRows < seg.past + seg.rows) {
      if (free_pages_.empty()) {
        throw Error("KV cache", fmt::format("full at {} tokens", pools_[0].rows),
                    "raise the context size");
      }
      s.pages.push_back(free_pages_.back());
      free_pages_.pop_back();
    }
    for (int64_t i = 0; i < seg.rows; ++i) {
      int64_t j = seg.past + i;
      places[static_cast<size_t>(seg.row_begin + i)] =
          s.pages[static_cast<size_t>(j / kPageRows)] * kPageRows +
          static_cast<int32_t>(j % kPageRows);
    }
  }
  return places;
}

void KvCache::commit(const Batch& batch) {
  for (const Segment& seg : batch.segments) {
    sequences_[static_cast<size_t>(seg.sequence)].length = seg.past + seg.rows;
  }
}

std::vector<int32_t> KvCache::places(int32_t sequence, int64_t n) const {
  const Sequence& s = sequences_[static_cast<size_t>(sequence)];
  std::vector<int32_t> out(static_cast<size_t>(n));
  for (int64_t j = 0; j < n; ++j) {
    out[static_cast<size_t>(j)] = s.pages[static_cast<size_t>(j / kPageRows)] * kPageRows +
                                  static_cast<int32_t>(j % kPageRows);
  }
  return out;
}

}  // namespace wels
