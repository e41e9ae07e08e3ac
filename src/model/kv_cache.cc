#include "model/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace wels {

KvLayout kv_layout(const ModelConfig& cfg, DType dtype, MlaRows rows) {
  auto blocks = [&](int64_t n) {
    return (n + info(dtype).block - 1) / info(dtype).block * info(dtype).block;
  };
  KvLayout l;
  if (cfg.is_mla() && rows == MlaRows::kExpanded) {
    CHECK(info(dtype).block == 1);
    l.head = cfg.qk_nope_head_dim + cfg.v_head_dim;
    l.second = cfg.num_attention_heads * l.head;
    l.width = l.second + cfg.qk_rope_head_dim;
  } else if (cfg.is_mla()) {
    l.second = blocks(cfg.kv_lora_rank);
    l.width = l.second + blocks(cfg.qk_rope_head_dim);
  } else {
    l.head = blocks(cfg.head_dim);
    l.second = cfg.num_key_value_heads * l.head;
    l.width = 2 * l.second;
  }
  return l;
}

int64_t kv_token_bytes(const ModelConfig& cfg, DType dtype, MlaRows rows) {
  return (cfg.num_hidden_layers + cfg.num_nextn_predict_layers) *
         row_bytes(dtype, kv_layout(cfg, dtype, rows).width);
}

KvCache::KvCache(const ModelConfig& cfg, DType dtype, int64_t max_tokens, MlaRows rows)
    : layout_(kv_layout(cfg, dtype, rows)) {
  int64_t layers = cfg.num_hidden_layers + cfg.num_nextn_predict_layers;
  int64_t width = layout_.width;
  int64_t n_pages = (std::max<int64_t>(max_tokens, 1) + kPageRows - 1) / kPageRows;
  int64_t layer_bytes = n_pages * kPageRows * row_bytes(dtype, width);
  bytes_ = layers * layer_bytes;
  memory_ = allocate_host(bytes_);
  for (int64_t l = 0; l < layers; ++l) {
    pools_.emplace_back(static_cast<uint8_t*>(memory_) + l * layer_bytes, dtype,
                        n_pages * kPageRows, width);
  }
  pages_.resize(static_cast<size_t>(n_pages));
  for (int64_t p = n_pages; p-- > 0;) free_.push_back(static_cast<int32_t>(p));
}

KvCache::~KvCache() { free_host(memory_, bytes_); }

// --- sequences ---

int32_t KvCache::add_sequence() {
  if (free_sequences_.empty()) {
    sequences_.emplace_back();
    return static_cast<int32_t>(sequences_.size()) - 1;
  }
  int32_t s = free_sequences_.back();
  free_sequences_.pop_back();
  return s;
}

int32_t KvCache::adopt(std::span<const int32_t> pages, int64_t rows) {
  CHECK(rows <= static_cast<int64_t>(pages.size()) * kPageRows);
  int32_t s = add_sequence();
  for (int32_t page : pages) use(page);
  at(s).pages.assign(pages.begin(), pages.end());
  at(s).length = rows;
  return s;
}

int32_t KvCache::fork(int32_t sequence) {
  std::vector<int32_t> pages = at(sequence).pages;
  return adopt(pages, length(sequence));
}

void KvCache::free_sequence(int32_t sequence) {
  truncate(sequence, 0);
  free_sequences_.push_back(sequence);
}

void KvCache::truncate(int32_t sequence, int64_t rows) {
  Sequence& s = at(sequence);
  CHECK(rows <= s.length);
  s.length = rows;
  size_t keep = static_cast<size_t>((rows + kPageRows - 1) / kPageRows);
  // The last page first: of pages that become idle together, a beginning outlives what follows it.
  while (s.pages.size() > keep) {
    int32_t page = s.pages.back();
    s.pages.pop_back();
    let_go(page);
  }
}

void KvCache::replace_page(int32_t sequence, int64_t index, int32_t page) {
  int32_t& mine = at(sequence).pages[static_cast<size_t>(index)];
  use(page);
  let_go(mine);
  mine = page;
}

// --- pages ---

void KvCache::keep(int32_t page) {
  CHECK(info(page).users > 0 && !info(page).kept);
  info(page).kept = true;
}

void KvCache::drop(int32_t page) {
  CHECK(info(page).kept);
  info(page).kept = false;
  if (info(page).users > 0) return;
  end_idle(page);
  free_.push_back(page);
}

void KvCache::use(int32_t page) {
  if (info(page).users++ == 0 && info(page).kept) end_idle(page);
}

void KvCache::let_go(int32_t page) {
  CHECK(info(page).users > 0);
  if (--info(page).users > 0) return;
  if (info(page).kept) {
    make_idle(page);
  } else {
    free_.push_back(page);
  }
}

void KvCache::make_idle(int32_t page) {
  info(page).before = last_idle_;
  info(page).after = -1;
  (last_idle_ < 0 ? longest_idle_ : info(last_idle_).after) = page;
  last_idle_ = page;
  ++idle_count_;
}

void KvCache::end_idle(int32_t page) {
  Page& p = info(page);
  (p.before < 0 ? longest_idle_ : info(p.before).after) = p.after;
  (p.after < 0 ? last_idle_ : info(p.after).before) = p.before;
  --idle_count_;
}

// A page of one user.
int32_t KvCache::take_page() {
  if (free_.empty()) {
    if (longest_idle_ < 0) {
      throw Error("KV cache", fmt::format("full at {} tokens", pools_[0].rows),
                  "raise the context size");
    }
    int32_t page = longest_idle_;
    if (taken_) taken_(page);
    drop(page);
  }
  int32_t page = free_.back();
  free_.pop_back();
  info(page).users = 1;
  return page;
}

// Whether the next rows would go into a partial page that is not the sequence's alone.
bool KvCache::must_copy(const Sequence& s, int64_t rows) const {
  size_t page = static_cast<size_t>(s.length / kPageRows);
  if (rows == 0 || s.length % kPageRows == 0 || page >= s.pages.size()) return false;
  return info(s.pages[page]).users > 1 || info(s.pages[page]).kept;
}

int64_t KvCache::missing_pages(int32_t sequence, int64_t rows) const {
  const Sequence& s = at(sequence);
  int64_t all = (s.length + rows + kPageRows - 1) / kPageRows;
  return std::max<int64_t>(all - static_cast<int64_t>(s.pages.size()), 0) + must_copy(s, rows);
}

// Makes the partial page of `row` the sequence's own.
void KvCache::own_page(Sequence& s, int64_t row) {
  int32_t& mine = s.pages[static_cast<size_t>(row / kPageRows)];
  if (info(mine).users == 1 && available_pages() == 0) {  // kept for later, but now is needed
    if (taken_) taken_(mine);
    drop(mine);
    return;
  }
  int32_t copy = take_page();
  for (Tensor& pool : pools_) {
    Tensor from = pool.row_range(int64_t{mine} * kPageRows, row % kPageRows);
    Tensor to = pool.row_range(int64_t{copy} * kPageRows, row % kPageRows);
    std::memcpy(to.data, from.data, static_cast<size_t>(from.bytes()));
  }
  let_go(mine);
  mine = copy;
}

// --- rows ---

void KvCache::write_places(const Sequence& s, int64_t from, std::span<int32_t> out) const {
  for (int32_t& place : out) {
    place = s.pages[static_cast<size_t>(from / kPageRows)] * kPageRows +
            static_cast<int32_t>(from % kPageRows);
    ++from;
  }
}

std::vector<int32_t> KvCache::reserve(const Batch& batch) {
  for (const Segment& seg : batch.segments) CHECK(seg.past == length(seg.sequence));
  for (const Segment& seg : batch.segments) {
    if (must_copy(at(seg.sequence), seg.rows)) own_page(at(seg.sequence), seg.past);
  }
  return reserve_module(batch);
}

std::vector<int32_t> KvCache::reserve_module(const Batch& batch) {
  std::vector<int32_t> places(static_cast<size_t>(batch.rows()));
  for (const Segment& seg : batch.segments) {
    Sequence& s = at(seg.sequence);
    CHECK(!must_copy(s, std::max<int64_t>(seg.past + seg.rows - s.length, 0)));
    while (static_cast<int64_t>(s.pages.size()) * kPageRows < seg.past + seg.rows)
      s.pages.push_back(take_page());
    write_places(s, seg.past,
                 std::span(places).subspan(static_cast<size_t>(seg.row_begin),
                                           static_cast<size_t>(seg.rows)));
  }
  return places;
}

void KvCache::commit(const Batch& batch) {
  for (const Segment& seg : batch.segments) at(seg.sequence).length = seg.past + seg.rows;
}

std::vector<int32_t> KvCache::places(int32_t sequence, int64_t n) const {
  std::vector<int32_t> out(static_cast<size_t>(n));
  write_places(at(sequence), 0, out);
  return out;
}

}  // namespace wels
