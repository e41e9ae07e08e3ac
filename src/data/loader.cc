#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "base/check.h"
#include "base/error.h"
#include "base/rng.h"

namespace wels {
namespace {

uint64_t mix(uint64_t x) {  // SplitMix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Inputs and targets of one window of at least two tokens.
void append_ids(std::span<const int32_t> window, bool document_mask, int32_t end_of_text,
                Batch& batch, std::vector<int32_t>& targets) {
  size_t t = window.size() - 1;
  if (!document_mask) {
    batch.append(window.first(t));
    targets.insert(targets.end(), window.begin() + 1, window.end());
    return;
  }
  for (size_t begin = 0; begin < t;) {
    size_t end = begin;
    while (end < t && window[end] != end_of_text) ++end;
    end =
        std::min(end + 1, t);  // the end-of-text token belongs to its document and predicts nothing
    batch.append(window.subspan(begin, end - begin));
    for (size_t i = begin; i < end; ++i)
      targets.push_back(window[i] == end_of_text ? -1 : window[i + 1]);
    begin = end;
  }
}

}  // namespace

int64_t permute(int64_t i, int64_t n, uint64_t key) {
  DCHECK(i >= 0 && i < n);
  int half = 1;
  while ((int64_t{1} << (2 * half)) < n) ++half;
  uint64_t mask = (uint64_t{1} << half) - 1, x = static_cast<uint64_t>(i);
  do {
    uint64_t left = x >> half, right = x & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      uint64_t next = left ^ (mix(right + key + round * 0x9E3779B97F4A7C15ull) & mask);
      left = right;
      right = next;
    }
    x = left << half | right;
  } while (x >= static_cast<uint64_t>(n));
  return static_cast<int64_t>(x);
}

Loader::Loader(const TokenShard& shard, LoaderConfig config) : shard_(shard), config_(config) {
  int64_t t = config_.sequence_length;
  if (config_.document_mask && shard.end_of_text() < 0) {
    throw Error("--document-mask",
                "the tokenizer has no end-of-sentence token to tell documents by",
                "leave it out, or use another --tokenizer");
  }
  // One window less than fits, so that every offset of an epoch leaves room for all.
  windows_ = (shard.tokens() - 1) / t - 1;
  if (windows_ < 1) {
    throw Error(
        "corpus",
        fmt::format("{} training tokens are too few for sequences of {}", shard.tokens(), t),
        "give more text or a shorter --seq");
  }
}

void Loader::enter_epoch(int64_t epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  order_.resize(static_cast<size_t>(shard_.documents()));
  std::iota(order_.begin(), order_.end(), 0);
  Rng rng(config_.seed, hash_name("documents") + static_cast<uint64_t>(epoch));
  for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[rng.below(i)]);
  starts_.resize(order_.size() + 1);
  starts_[0] = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    starts_[i + 1] =
        starts_[i] + shard_.document_begin(order_[i] + 1) - shard_.document_begin(order_[i]);
  }
  int64_t slack = shard_.tokens() - windows_ * config_.sequence_length;  // >= T + 1
  offset_ = static_cast<int64_t>(rng.below(static_cast<uint64_t>(slack)));
}

void Loader::sequence(int64_t i, Batch& batch, std::vector<int32_t>& targets) {
  int64_t epoch = i / windows_, t = config_.sequence_length;
  enter_epoch(epoch);
  int64_t window =
      permute(i % windows_, windows_, mix(config_.seed) + static_cast<uint64_t>(epoch));
  int64_t at = offset_ + window * t;
  size_t doc =
      static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), at) - starts_.begin()) -
      1;
  std::vector<int32_t> ids;
  for (; static_cast<int64_t>(ids.size()) <= t; ++at) {
    while (at >= starts_[doc + 1]) ++doc;
    ids.push_back(shard_.token(shard_.document_begin(order_[doc]) + at - starts_[doc]));
  }
  append_ids(ids, config_.document_mask, shard_.end_of_text(), batch, targets);
}

std::vector<int64_t> validation_windows(const TokenShard& shard, int64_t t, int64_t count) {
  int64_t all = (shard.tokens() - 2) / t + 1;
  std::vector<int64_t> out;
  int64_t n = count <= 0 ? all : std::min(count, all);
  for (int64_t k = 0; k < n; ++k) out.push_back(k * all / n * t);
  return out;
}

void append_window(const TokenShard& shard, int64_t begin, int64_t t, Batch& batch,
                   std::vector<int32_t>& targets, bool document_mask) {
  int64_t n = std::min(t, shard.tokens() - 1 - begin);
  if (n <= 0) return;
  std::vector<int32_t> ids;
  for (int64_t i = 0; i <= n; ++i) ids.push_back(shard.token(begin + i));
  append_ids(ids, document_mask, shard.end_of_text(), batch, targets);
}

}  // namespace wels
