#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>

#include "base/check.h"

namespace wels {

MergeTable::MergeTable(size_t rules) {
  size_t size = std::bit_ceil(std::max<size_t>(16, rules * 2));
  slots_.assign(size, {kEmpty, {kNone, -1}});
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
}

void MergeTable::add(int32_t left, int32_t right, Rule rule) {
  CHECK(left >= 0 && right >= 0);
  uint64_t key = key_of(left, right);
  size_t i = slot_of(key), probes = 0;
  for (; slots_[i].key != kEmpty && slots_[i].key != key; i = (i + 1) & mask_)
    CHECK(++probes < mask_);
  slots_[i] = {key, rule};
}

void MergeTable::merge(std::vector<int32_t>& ids) const {
  if (ids.size() > kShort) {
    merge_long(ids);
  } else {
    ids.resize(merge_short(ids.data(), ids.size()));
  }
}

size_t MergeTable::merge_short(int32_t* ids, size_t n) const {
  DCHECK(n <= kShort);
  if (n < 2) return n;
  Rule rules[kShort];  // rules[i]: of the pair (i, i + 1)
  for (size_t i = 0; i + 1 < n; ++i) rules[i] = find(ids[i], ids[i + 1]);
  while (n >= 2) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (rules[i].rank < rules[best].rank) best = i;
    }
    if (rules[best].rank == kNone) break;
    ids[best] = rules[best].joined;
    std::copy(ids + best + 2, ids + n, ids + best + 1);
    std::copy(rules + best + 1, rules + n - 1, rules + best);
    --n;
    if (best + 1 < n) rules[best] = find(ids[best], ids[best + 1]);
    if (best > 0) rules[best - 1] = find(ids[best - 1], ids[best]);
  }
  return n;
}

void MergeTable::merge_long(std::vector<int32_t>& ids) const {
  struct Candidate {
    uint32_t rank;
    uint32_t at;  // position of the left symbol
    int32_t left, right, joined;
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  auto n = static_cast<uint32_t>(ids.size());
  CHECK(ids.size() < kNone);
  std::vector<uint32_t> next(n), previous(n);
  std::vector<Candidate> heap;
  auto push = [&](uint32_t a, uint32_t b) {
    Rule rule = find(ids[a], ids[b]);
    if (rule.rank == kNone) return false;
    heap.push_back({rule.rank, a, ids[a], ids[b], rule.joined});
    return true;
  };
  for (uint32_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (i + 1 < n) push(i, i + 1);
  }
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    Candidate c = heap.back();
    heap.pop_back();
    uint32_t right = ids[c.at] == c.left ? next[c.at] : n;
    if (right >= n || ids[right] != c.right) continue;  // one of the two has been merged meanwhile
    ids[c.at] = c.joined;
    ids[right] = -1;
    next[c.at] = next[right];
    if (next[right] < n) {
      previous[next[right]] = c.at;
      if (push(c.at, next[c.at])) std::push_heap(heap.begin(), heap.end());
    }
    if (c.at > 0 && push(previous[c.at], c.at)) std::push_heap(heap.begin(), heap.end());
  }
  ids.erase(std::remove(ids.begin(), ids.end(), -1), ids.end());
}

}  // namespace wels
